"""A wave: one query each of several rows of a pass, which one backward pass can answer together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .query import Query
from .ranking import nearest, ranking
from .upload import upload


@dataclass(frozen=True)
class Wave:
    """The rows, classes and scores of n queries, on the device.

    rows: each query's row of the pass, (n).
    targets: the explained classes, (n).
    contrasts: the classes whose mean score is subtracted, (n, m); -1 for none.
    scores: the explained scores, (n).
    first: whether these are the first rows of the pass, in order, each once. Padding may come behind them.
    """

    rows: Tensor
    targets: Tensor
    contrasts: Tensor
    scores: Tensor
    first: bool

    def of(self, values: Tensor) -> Tensor:
        """The entries of `values`, (N, ...), that belong to the wave's rows."""
        if not self.first:
            return values[self.rows]
        # A slice of all rows may have other strides, and then its sums another order.
        return values if len(values) == len(self.rows) else values[: len(self.rows)]

    def pick(self, members: Sequence[int]) -> Wave:
        """The wave of some of its queries, by their numbers."""
        if len(members) == len(self.rows):
            return self
        index = upload(torch.tensor(members), self.rows.device)
        return Wave(self.rows[index], self.targets[index], self.contrasts[index], self.scores[index], False)

    def targets_of(self, queries: Sequence[Query]) -> list[int]:
        """The explained classes on the host; they are read back from the device only where a query gave none."""
        given = [query.target for query in queries if query.target is not None]
        return given if len(given) == len(queries) else [int(target) for target in self.targets.tolist()]


def wave_of(logits: Tensor, asked: Sequence[tuple[int, Query]]) -> Wave:
    """The wave of some queries, without a copy back to the host.

    logits: (N, classes).
    asked: each query with its row.
    """
    named = max(1, *(len(query.contrasts) for _, query in asked)) if asked else 1
    table = torch.tensor(
        [
            [
                row,
                -1 if query.target is None else query.target,
                query.rank,
                0 if query.contrasts else query.nearest or 0,
                *(*query.contrasts, *[-1] * named)[:named],
            ]
            for row, query in asked
        ]
    )
    given = upload(table, logits.device)
    (rows, targets, ranks, near), others = given[:, :4].unbind(1), given[:, 4:]
    found = logits.detach()[rows]
    if any(query.target is None for _, query in asked):
        # The best class, which most queries ask for, needs no sorting.
        best = found.argmax(1) if max(query.rank for _, query in asked) == 0 else _at(ranking(found), ranks)
        targets = torch.where(targets < 0, best, targets)
    most = max(0 if query.contrasts else query.nearest or 0 for _, query in asked)
    if most:
        kept = torch.arange(most, device=logits.device) < near[:, None]
        others = torch.cat([others, torch.where(kept, nearest(found, targets, most), -1)], 1)
    scores = logits[rows, targets] - subtracted(logits[rows[:, None], others.clamp_min(0)], others)
    return Wave(rows, targets, others, scores, [row for row, _ in asked] == [*range(len(asked))])


def subtracted(values: Tensor, contrasts: Tensor) -> Tensor:
    """The mean of the contrasts' values, (n, ...); 0 for a query that has none.

    values: (n, m, ...).
    contrasts: (n, m), -1 for none.
    """
    kept = (contrasts >= 0).reshape(*contrasts.shape, *[1] * (values.ndim - 2))
    return torch.where(kept, values, 0.0).sum(1) / kept.sum(1).clamp_min(1)


def _at(ranked: Tensor, ranks: Tensor) -> Tensor:
    return ranked.gather(1, ranks[:, None])[:, 0]
