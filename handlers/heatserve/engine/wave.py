"""A wave: one query each of several rows of a pass, which one backward pass can answer together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .query import Query
from .ranking import ranking


@dataclass(frozen=True)
class Wave:
    """The rows, classes and scores of n queries, on the device.

    rows: each query's row of the pass, (n).
    targets: the explained classes, (n).
    contrasts: the classes whose mean score is subtracted, (n, m); -1 for none.
    scores: the explained scores, (n).
    whole: whether these are all rows of the pass, in order, each once.
    """

    rows: Tensor
    targets: Tensor
    contrasts: Tensor
    scores: Tensor
    whole: bool

    def of(self, values: Tensor) -> Tensor:
        """The entries of `values`, (N, ...), that belong to the wave's rows."""
        return values if self.whole else values[self.rows]

    def pick(self, members: Sequence[int]) -> Wave:
        """The wave of some of its queries, by their numbers."""
        if len(members) == len(self.rows):
            return self
        index = torch.tensor(members).to(self.rows.device, non_blocking=True)
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
    given = torch.tensor(
        [
            [
                row,
                -1 if q.target is None else q.target,
                q.rank,
                -1 if q.contrast is None else q.contrast,
                q.nearest or 0,
            ]
            for row, q in asked
        ]
    ).to(logits.device, non_blocking=True)
    rows, targets, ranks, contrasts, nearest = given.unbind(1)
    found = logits.detach()[rows]
    if any(query.target is None for _, query in asked):
        # The best class, which most queries ask for, needs no sorting.
        best = found.argmax(1) if max(query.rank for _, query in asked) == 0 else _at(ranking(found), ranks)
        targets = torch.where(targets < 0, best, targets)
    others = contrasts[:, None]
    most = max(query.nearest or 0 for _, query in asked)
    if most:
        near = _nearest(found, targets, most)
        kept = torch.arange(most, device=logits.device) < nearest[:, None]
        others = torch.cat([others, torch.where(kept, near, -1)], 1)
    scores = logits[rows, targets] - subtracted(logits[rows[:, None], others.clamp_min(0)], others)
    return Wave(rows, targets, others, scores, [row for row, _ in asked] == [*range(len(logits))])


def subtracted(values: Tensor, contrasts: Tensor) -> Tensor:
    """The mean of the contrasts' values, (n, ...); 0 for a query that has none.

    values: (n, m, ...).
    contrasts: (n, m), -1 for none.
    """
    kept = (contrasts >= 0).reshape(*contrasts.shape, *[1] * (values.ndim - 2))
    return torch.where(kept, values, 0.0).sum(1) / kept.sum(1).clamp_min(1)


def _nearest(scores: Tensor, targets: Tensor, count: int) -> Tensor:
    """The `count` classes whose scores are nearest to each target's, above or below it, (n, count).

    Finer-CAM (Zhang et al. 2025) compares with these. The target itself comes last, also behind a class of score -inf.
    """
    away = (scores - scores.gather(1, targets[:, None])).abs().scatter(1, targets[:, None], torch.nan)
    return away.argsort(dim=1, stable=True)[:, :count]


def _at(ranked: Tensor, ranks: Tensor) -> Tensor:
    return ranked.gather(1, ranks[:, None])[:, 0]
