"""The serving loop: admit -> step -> answer. State is the exchanges by request id, nothing else.

One `step` is one forward pass for all that is new, or one chunk of one long explanation.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..engine import Explainer, Smoothing, is_out_of_memory
from ..imaging import Preprocess, decode
from .errors import Refusal, refusal_of, where
from .exchange import Exchange, Job
from .requests import Reader, explains
from .settings import Limits

logger = logging.getLogger(__name__)


class Loop:
    """The exchanges in progress of one worker."""

    def __init__(self, explainer: Explainer, reader: Reader, preprocess: Preprocess, limits: Limits) -> None:
        self.exchanges: dict[str, Exchange] = {}
        self._explainer = explainer
        self._reader = reader
        self._preprocess = preprocess
        self._limits = limits
        self._seconds_per_pass = 0.1

    @property
    def busy(self) -> bool:
        """Whether a step is left to do."""
        return any(not exchange.done for exchange in self.exchanges.values())

    def admit(self, request_id: str, row: Any, headers: Mapping[str, Any]) -> None:
        """Parses, decodes and preprocesses one row, once; a fault becomes this row's refusal."""
        exchange = self.exchanges[request_id] = Exchange(explains(headers))
        try:
            with exchange.stage("decode"):
                request = self._reader.read(row, headers)
                exchange.request = request
                self._bound_work(exchange)
                picture = decode(request.image, self._limits.max_pixels)
                image, exchange.geometry = self._preprocess.tensor(picture, self._limits.max_resized_pixels)
                if exchange.explains:
                    # A batch of photographs at full size would fill the memory: keep what an answer shows.
                    exchange.size = (picture.width, picture.height)
                    exchange.photograph = picture.upright(self._limits.max_side)
                exchange.image = image.to(self._explainer.device, non_blocking=True)
                exchange.attributions = [None] * len(request.queries)
        except Exception as error:
            self._refuse(exchange, error)

    def step(self) -> None:
        """Does the next piece of work. Never raises: a fault ends the exchange that it belongs to."""
        waiting = [exchange for exchange in self.exchanges.values() if exchange.waiting]
        if waiting:
            # The input's gradient cannot cross the cut at a tap: such rows get a pass of their own.
            through_input = [exchange for exchange in waiting if _needs_input_gradient(exchange)]
            for group in ([e for e in waiting if e not in through_input], through_input):
                if group:
                    self._forward(group)
            return
        for exchange in self.exchanges.values():
            if exchange.jobs:
                self._advance(exchange.jobs[0])
                return

    def take(self, request_id: str) -> Exchange:
        """Hands a finished exchange over and forgets it."""
        return self.exchanges.pop(request_id)

    def _forward(self, group: Sequence[Exchange]) -> None:
        """One forward pass for several rows; where it fails, each row alone, so that a fault stays with its row."""
        started = time.perf_counter()
        try:
            self._run(group)
        except Exception as error:
            if len(group) == 1:
                self._refuse(group[0], error)
            else:
                for exchange in group:
                    self._forward([exchange])
            return
        seconds = time.perf_counter() - started
        for exchange in group:
            exchange.seconds["forward"] += seconds

    def _run(self, group: Sequence[Exchange]) -> None:
        images = torch.stack([exchange.image for exchange in group if exchange.image is not None])
        now = [
            [query for query in exchange.request.queries if not query.smoothed] if exchange.request else []
            for exchange in group
        ]
        scores, attributions = self._explainer.run(images, now)
        # Softmax where the stock handler does it, and one copy to the host for both.
        probabilities, scores = torch.stack([torch.nn.functional.softmax(scores, dim=1), scores]).cpu()
        for row, exchange in enumerate(group):
            exchange.probabilities, exchange.scores = probabilities[row], scores[row]
            found = iter(attributions[row])
            ranked = scores[row].argsort(descending=True) if exchange.attributions else None
            for index, query in enumerate(exchange.request.queries if exchange.request else ()):
                if not query.smoothed:
                    exchange.attributions[index] = next(found)
                elif ranked is not None and exchange.image is not None:
                    smoothing = Smoothing(exchange.image, query.at(int(ranked[query.rank])))
                    exchange.jobs.append(Job(exchange, index, smoothing))

    def _advance(self, job: Job) -> None:
        """One chunk of one long explanation."""
        exchange, count = job.exchange, min(self._explainer.chunk, job.smoothing.left)
        started = time.perf_counter()
        try:
            with exchange.stage("explain"):
                self._explainer.advance([(job.smoothing, count)])
                if not job.smoothing.left:
                    exchange.attributions[job.index] = job.smoothing.estimate()
                    exchange.jobs.remove(job)
        except Exception as error:
            self._refuse(exchange, error)
            return
        pace = (time.perf_counter() - started) / (3 * count)
        self._seconds_per_pass += 0.2 * (pace - self._seconds_per_pass)

    def _bound_work(self, newcomer: Exchange) -> None:
        """No client may queue more explanation than `max_batch_work` before the worker listens again."""
        outstanding = sum(other.work_left for other in self.exchanges.values() if other is not newcomer)
        if newcomer.explains and outstanding + newcomer.work_left > self._limits.max_batch_work:
            wait = math.ceil(max(1.0, outstanding * self._seconds_per_pass))
            raise Refusal(503, "too much explanation is under way; try again later", retry_after=wait)

    def _refuse(self, exchange: Exchange, error: BaseException) -> None:
        exchange.refusal = refusal_of(error)
        exchange.jobs.clear()
        if exchange.refusal.code >= 500 and not isinstance(error, Refusal) and not is_out_of_memory(error):
            logger.error("request failed: %s", where(error))


def _needs_input_gradient(exchange: Exchange) -> bool:
    queries = exchange.request.queries if exchange.request else ()
    return any(query.through_input and not query.smoothed for query in queries)
