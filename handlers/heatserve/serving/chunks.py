"""Chunks: pieces of long explanations that share forward passes, done in steps."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..engine import Explainer, price_of
from .faults import Faults
from .items import Item
from .passes import Passes, Share, Steps
from .scheduling import Policy
from .states import Decoded, UnderWay

_END = object()


@dataclass(eq=False)
class Chunk:
    """A piece of long explanations.

    items: those that it works for.
    steps: those that are left to do.
    size: the number of images in its forward pass.
    work: in forward passes.
    longest: of its steps, in seconds.
    """

    items: Sequence[Item]
    steps: Steps
    size: int
    work: int
    longest: float = 0.0


class Chunks:
    """The chunk under way in one worker.

    chunk: None where none is begun.
    """

    def __init__(self, explainer: Explainer, passes: Passes, policy: Policy, faults: Faults) -> None:
        self.chunk: Chunk | None = None
        self._explainer = explainer
        self._passes = passes
        self._policy = policy
        self._faults = faults

    def keep_for(self, items: Collection[Item]) -> Chunk | None:
        """The chunk under way if it works for one of these items. Any other chunk is dropped, with the graph and the
        pictures that it holds."""
        if self.chunk and not any(item in self.chunk.items for item in items):
            self.chunk = None
        return self.chunk

    def drop(self) -> None:
        """Ends the chunk under way without a result."""
        self.chunk = None

    def start(self, claims: Sequence[Item]) -> Chunk:
        """A chunk for the first of these items. The others, in their order, fill the rest of its forward pass."""
        size = self._policy.size(self._explainer.chunk)
        if isinstance(claims[0].state, Decoded):
            self.chunk = self._first_passes([item for item in claims if isinstance(item.state, Decoded)][:size])
        else:
            self.chunk = self._smoothing(claims, size)
        return self.chunk

    def advance(self, chunk: Chunk) -> None:
        """Does one step of the chunk under way."""
        started = time.perf_counter()
        try:
            finished = next(chunk.steps, _END) is _END
            self._explainer.settle()
        except Exception as error:
            self.chunk = None
            self._recover(chunk, error)
            return
        seconds = time.perf_counter() - started
        chunk.longest = max(chunk.longest, seconds)
        for item in chunk.items:
            item.seconds["explain"] += seconds
        self._policy.stepped(seconds)
        if finished:
            self.chunk = None
            self._policy.finished(chunk.size, chunk.work, chunk.longest)

    def _first_passes(self, items: Sequence[Item]) -> Chunk:
        """First passes that carry a gradient back to the input."""
        work = 0
        for item, state in ((item, item.state) for item in items):
            if isinstance(state, Decoded):
                queries = [query for query in state.request.queries if query.through_input and not query.smoothed]
                item.served += price_of(queries) / queries[0].price
                work += price_of(queries)
        return Chunk(items, self._passes.first(items), len(items), work)

    def _smoothing(self, claims: Sequence[Item], size: int) -> Chunk:
        """Draws for the jobs of these items. Of the jobs of an item, those with the fewest draws go first.

        Jobs whose next draws are the same images get the same number of them, and stay together.
        """
        shares: list[Share] = []
        rows = work = 0
        for item, state in ((item, item.state) for item in claims):
            if not isinstance(state, UnderWay):
                continue
            for group in sorted(state.groups, key=lambda group: group.samples):
                count = min(size - rows, group.left)
                if count:
                    shares += [(item, job, min(count, job.smoothing.left)) for job in group.members]
                    item.served += count * group.price / group.members[0].smoothing.query.price
                    rows += count
                    work += count * group.price
        items = list(dict.fromkeys(item for item, *_ in shares))
        return Chunk(items, self._passes.smooth(shares), rows, work)

    def _recover(self, chunk: Chunk, error: Exception) -> None:
        """Gives each item of a chunk that failed a pass of its own, so that a fault stays with its item."""
        # A deadline may have ended some of them between two steps.
        left = [item for item in chunk.items if not item.done]
        if len(chunk.items) == 1:
            for item in left:
                item.refuse(self._faults.record(error))
            return
        for item in left:
            if not isinstance(item.state, UnderWay):
                self._passes.forward([item])
                continue
            try:
                for _ in self._passes.smooth(_least(item, item.state)):
                    pass
            except Exception as own:
                item.refuse(self._faults.record(own))


def _least(item: Item, state: UnderWay) -> list[Share]:
    """One image for the first jobs that need one. Jobs that had all of theirs in a chunk that failed get no further."""
    groups = state.groups
    ended = [job for group in groups for job in group.members if not job.smoothing.left]
    waiting = [job for group in [group for group in groups if group.left][:1] for job in group.members]
    return [*((item, job, 0) for job in ended), *((item, job, 1) for job in waiting if job.smoothing.left)]
