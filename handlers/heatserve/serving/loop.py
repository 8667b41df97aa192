"""The serving loop: admit -> step -> answer. State is the visits by request id, and the chunk under way.

One `step` decodes new pictures and is one forward pass for all of them, or it is a piece of one chunk of the long
explanations, or it decodes one picture that would hold the others up.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from ..engine import Explainer, Smoothing, is_device_lost, is_out_of_memory, ranking
from ..imaging import Preprocess
from .admission import Admission
from .errors import Refusal, printable, refusal_of, where
from .exchange import Exchange, Job, Visit
from .protocols import protocol_of
from .requests import RequestParser
from .scheduling import Policy
from .settings import Limits

logger = logging.getLogger(__name__)

Steps = Generator[None, None, None]
_END = object()


@dataclass(eq=False)
class Chunk:
    """A piece of long explanations that share forward passes: whose, how large, and what of it is left to do.

    rows: of its forward pass. work: in forward passes. longest: of its steps, seconds.
    """

    exchanges: Sequence[Exchange]
    steps: Steps
    rows: int
    work: int
    longest: float = 0.0


class Loop:
    """The rows in progress of one worker."""

    def __init__(
        self,
        explainer: Explainer,
        reader: RequestParser,
        preprocess: Preprocess,
        limits: Limits,
        policy: Policy,
        grpc_stream: bool = False,
    ) -> None:
        self.visits: dict[str, Visit] = {}
        #: What is left to tell everybody once the device is lost.
        self.lost: Refusal | None = None
        self._explainer = explainer
        self._admission = Admission(reader, preprocess, limits, policy, explainer.device)
        self._policy = policy
        self._grpc_stream = grpc_stream
        self._chunk: Chunk | None = None
        self._until = math.inf

    @property
    def busy(self) -> bool:
        """Whether a step is left to do."""
        return any(not visit.done for visit in self.visits.values())

    @property
    def under_way(self) -> int:
        """How many explanations take further passes."""
        return sum(exchange.long for exchange in self._exchanges())

    def improved(self) -> dict[str, Exchange]:
        """The unfinished exchanges that have a line of their stream to send."""
        return {
            request_id: exchange
            for request_id, visit in self.visits.items()
            if visit.door.http or self._grpc_stream
            for exchange in visit.exchanges
            if exchange.improvements > exchange.lines
        }

    @property
    def late(self) -> bool:
        """Whether admitting or answering further rows would hold up those who come next. Never where nobody can."""
        return self._policy.clock() > self._until

    def begin(self, request_ids: Collection[str]) -> int:
        """Starts a call for these rows; drops those that nobody waits for any more, and says how many there were."""
        self._until = self._policy.clock() + self._policy.patience
        gone = [request_id for request_id in self.visits if request_id not in request_ids]
        for request_id in gone:
            del self.visits[request_id]
        if self._chunk and not any(exchange in self._chunk.exchanges for exchange in self._unfinished()):
            self._chunk = None  # it holds a graph and the pictures of its rows
        return len(gone)

    def admit(self, request_id: str, row: Any, headers: Mapping[str, Any]) -> Visit:
        """Reads one row, once, and decodes nothing of it; a fault of an instance becomes that instance's refusal."""
        door = protocol_of(row, headers)
        visit = Visit(door)
        others = [*self._exchanges()]
        entry = self._policy.entry([other for other in others if other.long])
        self.visits[request_id] = visit
        for instance in door.inputs:
            exchange = Exchange(door.explains, served=entry)
            visit.exchanges.append(exchange)
            try:
                with exchange.stage("decode"):
                    self._admission.read(exchange, instance, visit, headers, others)
            except Exception as error:
                self._refuse(exchange, error)
        return visit

    def step(self) -> None:
        """Does the next piece of work. Never raises: a fault ends the exchange that it belongs to."""
        self._decode_quick()
        passes = [exchange for exchange in self._exchanges() if exchange.waiting and not exchange.through_input]
        # A request of many pictures shares its passes with others, and none fills the memory.
        passes = passes[: self._explainer.rows]
        if self._policy.chunk_next(bool(passes), any(exchange.wants_chunks for exchange in self._exchanges())):
            self._advance()
        elif passes:
            self._forward(passes)
        self._conclude_overdue()
        # What a step took is no reason to keep its answers back.
        self._until = self._policy.clock() + self._policy.patience

    @property
    def done(self) -> list[str]:
        """The request ids of the finished rows."""
        return [request_id for request_id, visit in self.visits.items() if visit.done]

    def take(self, request_id: str) -> Visit:
        """Hands a row over and forgets it."""
        return self.visits.pop(request_id)

    def fail(self, rows: Mapping[str, tuple[Any, Mapping[str, Any]]], error: Exception) -> dict[str, Visit]:
        """Ends everything: each row that is waited for, by its request id, is refused."""
        begun, self.visits, self._chunk = self.visits, {}, None
        failed = {}
        for request_id, (row, headers) in rows.items():
            visit = begun.get(request_id)
            if visit is None or not visit.exchanges:
                door = protocol_of(row, headers)
                visit = Visit(door, [Exchange(door.explains)])
            visit.refuse(self._told(error))
            failed[request_id] = visit
        return failed

    def _exchanges(self) -> Iterator[Exchange]:
        """The first of every row, then the second of those that have one, and so on."""
        turns = zip_longest(*(visit.exchanges for visit in self.visits.values()))
        return (exchange for turn in turns for exchange in turn if exchange is not None)

    def _unfinished(self) -> list[Exchange]:
        return [exchange for exchange in self._exchanges() if not exchange.done]

    def _decode_quick(self) -> None:
        """Decodes the pictures that hold nobody up, at least one, for as long as the call has time; the others stay.

        The least costly goes first, but one that was passed over counts for less at each call.
        """
        quick = [exchange for exchange in self._exchanges() if exchange.undecoded and not exchange.costly]
        quick.sort(key=lambda exchange: (1 + exchange.cost_ms) / (1 + exchange.passed_over))
        for number, exchange in enumerate(quick):
            if number and self.late:
                exchange.passed_over += 1
            else:
                self._decode(exchange)

    def _decode(self, exchange: Exchange) -> None:
        try:
            with exchange.stage("decode"):
                self._admission.decode(exchange)
        except Exception as error:
            self._refuse(exchange, error)

    def _forward(self, group: Sequence[Exchange]) -> None:
        """One forward pass for several rows; where it fails, each row alone, so that a fault stays with its row."""
        started = time.perf_counter()
        try:
            for _ in self._first_pass(group):
                pass
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
        # Costly pictures were decoded by steps of their own.
        decoding = sum(exchange.seconds["decode"] for exchange in group if not exchange.costly)
        self._policy.passed(len(group), seconds, decoding)

    def _first_pass(self, group: Sequence[Exchange]) -> Steps:
        """Predictions, and all that is not smoothed; what is smoothed becomes jobs."""
        images = torch.stack([exchange.image for exchange in group if exchange.image is not None])
        now = [
            [query for query in exchange.request.queries if not query.smoothed] if exchange.request else []
            for exchange in group
        ]
        scores, attributions = yield from self._explainer.steps(images, now)
        # Softmax where the stock handler does it, and one copy to the host for both.
        probabilities, scores = torch.stack([torch.nn.functional.softmax(scores, dim=1), scores]).cpu()
        for row, exchange in enumerate(group):
            exchange.probabilities, exchange.scores = probabilities[row], scores[row]
            found = iter(attributions[row])
            ranked = ranking(scores[row]) if exchange.attributions else None
            for index, query in enumerate(exchange.request.queries if exchange.request else ()):
                if not query.smoothed:
                    exchange.attributions[index] = next(found)
                elif ranked is not None and exchange.image is not None:
                    smoothing = Smoothing(exchange.image, query.at(int(ranked[query.rank])))
                    exchange.jobs.append(Job(index, smoothing))

    def _advance(self) -> None:
        """One step of the chunk under way or of the next one, or one costly picture."""
        live = self._unfinished()
        chunk = self._chunk
        if chunk is None or not any(exchange in live for exchange in chunk.exchanges):
            claims = self._policy.order([exchange for exchange in self._exchanges() if exchange.wants_chunks])
            if claims[0].undecoded:
                self._decode_costly(claims[0])
                return
            chunk = self._chunk = self._next_chunk(claims)
        started = time.perf_counter()
        try:
            finished = next(chunk.steps, _END) is _END
            self._explainer.settle()
        except Exception as error:
            self._chunk = None
            self._recover(chunk, error)
            return
        seconds = time.perf_counter() - started
        chunk.longest = max(chunk.longest, seconds)
        for exchange in chunk.exchanges:
            exchange.seconds["explain"] += seconds
        self._policy.stepped(seconds)
        if finished:
            self._chunk = None
            self._policy.finished(chunk.rows, chunk.work, chunk.longest)

    def _decode_costly(self, exchange: Exchange) -> None:
        started = time.perf_counter()
        exchange.served += 1
        self._chunk = None
        self._decode(exchange)
        self._policy.decoded(time.perf_counter() - started)

    def _next_chunk(self, claims: Sequence[Exchange]) -> Chunk:
        """A chunk for the first of these, in the order in which they are owed one; others fill what it leaves of the
        forward pass."""
        size = self._policy.size(self._explainer.chunk)
        if claims[0].waiting:
            group = [exchange for exchange in claims if exchange.waiting][:size]
            for exchange in group:
                exchange.served += 1
            return Chunk(group, self._first_pass(group), len(group), 3 * len(group))
        shares: list[tuple[Exchange, Job, int]] = []
        for exchange in claims:
            for job in sorted(exchange.jobs, key=lambda job: job.smoothing.samples):
                count = min(size - sum(share[2] for share in shares), job.smoothing.left)
                if count:
                    exchange.served += count
                    shares.append((exchange, job, count))
        return self._smoothing(shares)

    def _smoothing(self, shares: Sequence[tuple[Exchange, Job, int]]) -> Chunk:
        rows = sum(count for *_, count in shares)
        exchanges = list(dict.fromkeys(exchange for exchange, *_ in shares))
        return Chunk(exchanges, self._smooth(shares), rows, 3 * rows)

    def _smooth(self, shares: Sequence[tuple[Exchange, Job, int]]) -> Steps:
        yield from self._explainer.advance([(job.smoothing, count) for _, job, count in shares])
        for exchange, job, _ in shares:
            if not job.smoothing.left and job in exchange.jobs:
                self._conclude(exchange, job)

    def _conclude(self, exchange: Exchange, job: Job) -> None:
        found = job.smoothing.estimate()
        if self._explainer.precision != "float32" and not bool(found.values.isfinite().all()):
            self._refuse(exchange, OverflowError(f"a gradient does not fit into {self._explainer.precision}"))
            return
        exchange.attributions[job.index] = found
        exchange.jobs.remove(job)

    def _recover(self, chunk: Chunk, error: Exception) -> None:
        """A fault stays with its row: those that shared a pass each get one of their own."""
        # A deadline may have ended some of them between two steps.
        left = [exchange for exchange in chunk.exchanges if not exchange.done]
        if len(chunk.exchanges) == 1:
            for exchange in left:
                self._refuse(exchange, error)
            return
        for exchange in left:
            if exchange.waiting:
                self._forward([exchange])
                continue
            try:
                for _ in self._smooth([(exchange, exchange.jobs[0], 1)]):
                    pass
            except Exception as own:
                self._refuse(exchange, own)

    def _conclude_overdue(self) -> None:
        now = self._policy.clock()
        for exchange in self._exchanges():
            if exchange.jobs and exchange.deadline <= now and exchange.presentable:
                exchange.conclude()

    def _refuse(self, exchange: Exchange, error: BaseException) -> None:
        refusal = self._told(error)
        exchange.refuse(refusal)
        if refusal.code >= 500 and not isinstance(error, Refusal) and not is_out_of_memory(error):
            logger.error("request failed: %s", where(error))

    def _told(self, error: BaseException) -> Refusal:
        refusal = refusal_of(error)
        if is_device_lost(error):
            if self.lost is None:
                logger.error("heatserve: the device is lost: %s", printable(str(error).partition("\n")[0], 120))
            self.lost = refusal
        return refusal
