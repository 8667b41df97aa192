"""Passes of the network: they take items from decoded to under way, and from under way to finished."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from itertools import islice
from typing import Union

import torch
from torch import Tensor

from ..engine import Attribution, Explainer, begun, explained_class, on_host, ranking
from .faults import Faults
from .items import Item
from .scheduling import Policy
from .states import Decoded, Finished, Job, UnderWay

#: Work that may stop after each of its passes, or parts of a pass.
Steps = Generator[None, None, None]
#: Draws that a chunk does for a job of an item.
Share = tuple[Item, Job, int]


class Passes:
    """The passes of one worker's network."""

    def __init__(self, explainer: Explainer, policy: Policy, faults: Faults) -> None:
        self._explainer = explainer
        self._policy = policy
        self._faults = faults

    def forward(self, items: Sequence[Item], decoding: float = 0.0) -> None:
        """One forward pass for decoded items. If it fails, each item gets a pass alone: a fault stays with its item.

        decoding: seconds in which this thread waited for their pictures.
        """
        started = time.perf_counter()
        try:
            with self._explainer.launches.urgent():
                for _ in self.first(items):
                    pass
        except Exception as error:
            if len(items) == 1:
                items[0].refuse(self._faults.record(error))
            else:
                for item in items:
                    self.forward([item])
            return
        seconds = time.perf_counter() - started
        for item in items:
            item.seconds["forward"] += seconds
        self._policy.passed(len(items), seconds, decoding)

    def first(self, items: Sequence[Item]) -> Steps:
        """Predictions of decoded items, and their maps that are not smoothed. Each smoothed map becomes a job."""
        waiting = [(item, item.state) for item in items if isinstance(item.state, Decoded)]
        images = torch.stack([state.image for _, state in waiting])
        asked = [[query.at_image for query in state.request.queries] for _, state in waiting]
        now = [[query for query in queries if query is not None] for queries in asked]
        scores, attributions = yield from self._explainer.steps(images, now)
        # The activation on the device, where the stock handler has its softmax, and one copy to the host for all.
        maps = [each for row in attributions for each in row]
        moved, (probabilities, scores) = on_host(maps, self._explainer.probabilities(scores), scores)
        left = iter(moved)
        predicted = [
            _predicted(state, probabilities[row], scores[row], [*islice(left, len(attributions[row]))])
            for row, (_, state) in enumerate(waiting)
        ]
        for (item, _), state in zip(waiting, predicted):
            item.state = state

    def smooth(self, shares: Sequence[Share]) -> Steps:
        """Draws for some jobs. A job that has all of its draws gives its map to its item."""
        yield from self._explainer.advance([(job.smoothing, count) for _, job, count in shares])
        for item, job, _ in shares:
            if not job.smoothing.left:
                self._finish(item, job)

    def _finish(self, item: Item, job: Job) -> None:
        state = item.state
        if not isinstance(state, UnderWay) or all(each is not job for each in state.jobs):
            return  # a deadline came first
        [found], _ = on_host([job.smoothing.estimate()])
        if self._explainer.precision != "float32" and not bool(found.values.isfinite().all()):
            overflow = OverflowError(f"a gradient does not fit into {self._explainer.precision}")
            item.refuse(self._faults.record(overflow))
        else:
            item.state = state.without(job, found)


def _predicted(
    decoded: Decoded, probabilities: Tensor, scores: Tensor, attributions: Sequence[Attribution]
) -> Union[UnderWay, Finished]:
    """The state after the first pass. A query that its `least` drops has no map.

    attributions: of the queries that the first pass answered and did not drop, in their order.
    """
    maps: list[Attribution | None] = []
    jobs: list[Job] = []
    ranked: list[int] = []
    likely: list[float] = []
    found = deque(attributions)
    for query in decoded.request.queries:
        asked, answer = query.at_image, None
        if asked is not None and found and found[0].query == asked.at(found[0].query.target or 0):
            answer = found.popleft()
        if not query.smoothed:
            if answer is not None:
                maps.append(answer)
            continue
        ranked = ranked or ranking(scores).tolist()
        likely = likely or probabilities.tolist()
        target = explained_class(query, ranked, likely)
        if target is not None:
            prepared = None if answer is None else answer.values
            beside = [job.smoothing for job in jobs]
            jobs.append(Job(len(maps), begun(decoded.image, query.at(target, scores), prepared, beside)))
            maps.append(None)
    state = UnderWay(decoded, probabilities, scores, maps, jobs)
    return state if jobs else state.concluded()
