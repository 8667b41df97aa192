"""Advancing: the next draws of several explanations, in few passes: explanations whose draws are the same images share.

Draws of different pictures share a pass too, where they have the same precision and as many backward passes. A row that
needs fewer than another would go through all of the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .network import Answers
from .query import Attribution, Query
from .room import Room
from .sharing import alike, price_of
from .sizes import padded
from .smoothing import Smoothing

#: An explanation, and how many draws it gets.
Share = tuple[Smoothing, int]
#: `Explainer.steps`.
Steps = Callable[[Tensor, Sequence[Sequence[Query]], str], Generator[None, None, Answers]]


@dataclass(frozen=True)
class _Group:
    """Explanations whose next draws are the same images. The one with the most draws comes first."""

    shares: list[Share]

    @property
    def rows(self) -> int:
        return self.shares[0][1]

    @property
    def queries(self) -> list[list[Query]]:
        """Of each image: those of the explanations that get so many draws."""
        return [[smoothing.query for smoothing, count in self.shares if row < count] for row in range(self.rows)]

    def draw(self) -> Tensor:
        return self.shares[0][0].draw(self.rows)

    def update(self, found: Sequence[Sequence[Attribution]], zeros_are_zero: bool) -> None:
        """found: the attributions of each image, as they were asked for."""
        for number, (smoothing, count) in enumerate(self.shares):
            own = [row[number] for row in found[:count]]
            smoothing.update(torch.stack([one.values for one in own]), zeros_are_zero, [one.score for one in own])


def advance(shares: Sequence[Share], steps: Steps, room: Room, precision: str) -> Generator[None, None, None]:
    """Takes further draws for several explanations; yields before each backward pass.

    steps: makes a pass of images with the queries of each, in a precision.
    room: takes note of a pass that went well.
    precision: the archive's.

    The explanations change with the last step of their pass.
    """
    passes: dict[tuple[str, int], list[_Group]] = {}
    for numbers in alike([smoothing for smoothing, _ in shares]):
        group = _Group(sorted((shares[number] for number in numbers), key=lambda share: -share[1]))
        queries = group.queries[0]
        passes.setdefault((queries[0].precision(precision), price_of(queries)), []).append(group)
    for (each, _), groups in passes.items():
        yield from _pass(groups, steps, room, each)


def _pass(groups: Sequence[_Group], steps: Steps, room: Room, precision: str) -> Generator[None, None, None]:
    """One pass, which takes the draws of some groups of one precision."""
    draws = [group.draw() for group in groups]
    queries: Sequence[Sequence[Query]] = [row for group in groups for row in group.queries]
    images, queries = padded(torch.cat(draws) if len(draws) > 1 else draws[0], queries, room.sizes)
    before = room.shortages
    _, found = yield from steps(images, queries, precision)
    if room.shortages == before:
        room.fitted(len(images))
    # float16 has no number between 0 and 6e-8: a gradient of 0 may have been a small one.
    zeros_are_zero = precision != "float16"
    first = 0
    for group in groups:
        group.update(found[first : first + group.rows], zeros_are_zero)
        first += group.rows
