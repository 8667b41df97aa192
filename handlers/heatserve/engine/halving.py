"""Halving: a batch that the device has no memory for is done as two batches of half its rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor

from .errors import OutOfMemory, is_out_of_memory
from .network import Answers
from .query import Query
from .room import Room

Queries = Sequence[Sequence[Query]]
#: `Network.passes`, with its precision bound.
Passes = Callable[[Tensor, Queries], Generator[None, None, Answers]]


def in_halves(passes: Passes, images: Tensor, queries: Queries, room: Room) -> Generator[None, None, Answers]:
    """The answers of `passes`, in as many parts as memory demands; room takes note of every shortage.

    Raises OutOfMemory where a single row does not fit.
    """
    try:
        return (yield from passes(images, queries))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        room.shortages += 1
    # Outside the handler: the error's frames would hold the pass that did not fit.
    if len(images) == 1:
        raise OutOfMemory("the device has no memory left for this row")
    middle = len(images) // 2
    room.short(len(images))
    first = yield from in_halves(passes, images[:middle], queries[:middle], room)
    second = yield from in_halves(passes, images[middle:], queries[middle:], room)
    return torch.cat([first[0], second[0]]), first[1] + second[1]
