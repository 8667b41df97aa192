"""One row on its way through the serving loop, from admission to answer: an exchange for each of its pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from ..engine import Attribution, Smoothing
from ..imaging import Geometry
from .errors import Refusal
from .items import Described, Finished, Outcome, Refused
from .protocols import RowProtocol
from .requests import Request

STAGES = ("decode", "forward", "explain", "render")
#: Shares of the samples after which a stream sends a line, before the last one.
IMPROVEMENTS = (0.1, 0.2, 0.4)


@dataclass(eq=False)
class Job:
    """A long explanation, and which of its exchange's answers it is."""

    index: int
    smoothing: Smoothing


@dataclass(eq=False)
class Exchange:
    """Its state: `refusal` set, or undecoded (`image` None), or image waiting (`probabilities` None), or jobs left, or
    done.

    explains: whether maps were asked for, known even where the request could not be read.
    Equal to itself alone: two clients may well send the same bytes.
    image: (3, H, W) on the model's device. probabilities, scores: (classes) on the host. seconds: by stage.
    photograph: upright, no larger than an answer shows it, None for a prediction; `size` is that of the one sent.
    deadline: on the loop's clock. served: rows that it was given. lines: those of its stream that were sent.
    cost_ms: of decoding, as its header promises. costly: whether that would hold the other rows up. passed_over: calls
    in which there was no time left to decode it.
    """

    explains: bool
    request: Request | None = None
    photograph: Image.Image | None = None
    size: tuple[int, int] = (0, 0)
    geometry: Geometry | None = None
    image: Tensor | None = None
    probabilities: Tensor | None = None
    scores: Tensor | None = None
    attributions: list[Attribution | None] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    refusal: Refusal | None = None
    empty_maps: int = 0
    deadline: float = math.inf
    served: float = 0.0
    lines: int = 0
    cost_ms: float = 0.0
    costly: bool = False
    passed_over: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def status(self) -> int:
        """What its client is told, as an HTTP status."""
        return self.refusal.code if self.refusal else 200

    @property
    def undecoded(self) -> bool:
        """Whether its picture is still to be decoded."""
        return self.request is not None and not self.done and self.image is None

    @property
    def waiting(self) -> bool:
        """Whether its first forward pass is the next thing that it needs."""
        return self.image is not None and not self.done and self.probabilities is None

    @property
    def through_input(self) -> bool:
        """Whether that pass has to carry a gradient back to the input, which takes as long as a chunk."""
        queries = self.request.queries if self.request else ()
        return any(query.through_input and not query.smoothed for query in queries)

    @property
    def wants_chunks(self) -> bool:
        """Whether its next piece of work is a chunk's."""
        if self.undecoded:
            return self.costly
        return not self.done and (bool(self.jobs) or (self.waiting and self.through_input))

    @property
    def done(self) -> bool:
        if self.refusal is not None or (self.request is not None and self.request.describes):
            return True
        return self.probabilities is not None and not self.jobs

    @property
    def long(self) -> bool:
        """Whether it takes chunks: more than the pass that predictions share."""
        return self.request is not None and not self.done and self.request.work > 1

    @property
    def work_left(self) -> int:
        """Forward passes still to do, roughly."""
        if self.request is None or self.done:
            return 0
        if self.probabilities is None:
            return self.request.work
        return sum(3 * job.smoothing.left for job in self.jobs)

    @property
    def presentable(self) -> bool:
        """Whether every map has an estimate to show."""
        return self.probabilities is not None and all(job.smoothing.presentable for job in self.jobs)

    @property
    def improvements(self) -> int:
        """How many lines of a stream are due by now, before the last one."""
        if self.request is None or not self.request.stream or not self.jobs or not self.presentable:
            return 0
        share = min(job.smoothing.samples / job.smoothing.query.count for job in self.jobs)
        return sum(share >= improvement for improvement in IMPROVEMENTS)

    def estimates(self) -> list[Attribution]:
        """Every map as it stands."""
        current: dict[int, Attribution] = {job.index: job.smoothing.estimate() for job in self.jobs}
        return [current[index] if found is None else found for index, found in enumerate(self.attributions)]

    def outcome(self) -> Outcome:
        if self.refusal is not None:
            return Refused(self.refusal, self.request, self.seconds)
        assert self.request is not None
        if self.request.describes:
            return Described(self.request, self.seconds)
        assert self.geometry is not None and self.probabilities is not None and self.scores is not None
        return Finished(
            self.request,
            self.size,
            self.geometry,
            self.photograph,
            self.probabilities,
            self.scores,
            tuple(self.estimates()),
            self.seconds,
        )

    def refuse(self, refusal: Refusal) -> None:
        """Ends it without an answer."""
        self.jobs.clear()
        self.refusal = refusal

    def conclude(self) -> None:
        """Takes the maps as they stand for the answer."""
        self.attributions = [*self.estimates()]
        self.jobs.clear()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the wall time of what is done inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


@dataclass(eq=False)
class Visit:
    """One row: the door it came in by, and an exchange for each of its pictures."""

    door: RowProtocol
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(exchange.done for exchange in self.exchanges)

    def refuse(self, refusal: Refusal) -> None:
        """Ends all of it."""
        for exchange in self.exchanges:
            exchange.refuse(refusal)
