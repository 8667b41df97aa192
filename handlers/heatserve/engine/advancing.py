"""Advancing: the next draws of several explanations, in as few passes as their precisions allow."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor

from .network import Answers
from .query import Query
from .room import Room
from .smoothing import Smoothing

#: An explanation, and how many draws it gets.
Share = tuple[Smoothing, int]
#: `Explainer.steps`.
Steps = Callable[[Tensor, Sequence[Sequence[Query]], str], Generator[None, None, Answers]]


def advance(shares: Sequence[Share], steps: Steps, room: Room, precision: str) -> Generator[None, None, None]:
    """Takes further draws for several explanations; yields before each backward pass.

    steps: makes a pass of images with the queries of each, in a precision.
    room: takes note of a pass that went well.
    precision: the archive's.

    The explanations change with the last step of their pass.
    """
    wanted = [smoothing.query.precision(precision) for smoothing, _ in shares]
    for each in dict.fromkeys(wanted):
        yield from _advance([share for share, own in zip(shares, wanted) if own == each], steps, room, each)


def _advance(shares: Sequence[Share], steps: Steps, room: Room, precision: str) -> Generator[None, None, None]:
    """`advance` for explanations of one precision."""
    draws = [smoothing.draw(count) for smoothing, count in shares]
    queries = [[smoothing.query] for smoothing, count in shares for _ in range(count)]
    images = torch.cat(draws) if len(draws) > 1 else draws[0]
    before = room.shortages
    _, attributions = yield from steps(images, queries, precision)
    if room.shortages == before:
        room.fitted(len(images))
    found = iter(row[0] for row in attributions)
    # float16 has no number between 0 and 6e-8: a gradient of 0 may have been a small one.
    zeros_are_zero = precision != "float16"
    for smoothing, count in shares:
        own = [next(found) for _ in range(count)]
        smoothing.update(torch.stack([one.values for one in own]), zeros_are_zero, [one.score for one in own])
