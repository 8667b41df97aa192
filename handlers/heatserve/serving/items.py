"""The items of a row and their states: one item for each picture that a row brings.

An item is admitted, then decoded, then perhaps under way for many passes. It ends in one of three outcomes: it is
finished, it is refused, or it asked for a description of the archive. Each state is a frozen value of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Union

from PIL import Image
from torch import Tensor

from ..engine import Attribution, Smoothing
from ..imaging import Geometry
from .errors import Refusal
from .protocols import RowProtocol
from .requests import Request

STAGES = ("decode", "forward", "explain", "render")
#: Shares of the samples after which a stream sends a line. The last line is the finished answer.
IMPROVEMENTS = (0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Admitted:
    """An item whose request is read and bounded, and whose picture is not decoded yet.

    size: (width, height) that the picture's header promises.
    cost_ms: of decoding, as the header promises.
    costly: whether decoding it would hold up the other rows.
    """

    request: Request
    size: tuple[int, int] = (0, 0)
    cost_ms: float = 0.0
    costly: bool = False


@dataclass(frozen=True, eq=False)
class Decoded:
    """An item that waits for its first forward pass.

    image: (3, H, W) on the model's device.
    size: (width, height) of the picture that was sent.
    photograph: upright, no larger than an answer shows it; None for a prediction.
    costly: whether the picture was decoded in a step of its own.
    """

    request: Request
    image: Tensor
    geometry: Geometry
    size: tuple[int, int]
    photograph: Image.Image | None
    costly: bool = False

    @property
    def through_input(self) -> bool:
        """Whether the first pass carries a gradient back to the input, which takes as long as a chunk."""
        return any(query.through_input and not query.smoothed for query in self.request.queries)


@dataclass(frozen=True, eq=False)
class Job:
    """One map that takes many passes.

    index: of its query in the request.
    """

    index: int
    smoothing: Smoothing


@dataclass(frozen=True, eq=False)
class UnderWay:
    """An item that has its prediction, and waits for further passes.

    probabilities, scores: (classes) on the host.
    attributions: one for each query; None where a job is left.
    jobs: one at least.
    """

    decoded: Decoded
    probabilities: Tensor
    scores: Tensor
    attributions: Sequence[Attribution | None]
    jobs: Sequence[Job]

    @property
    def request(self) -> Request:
        return self.decoded.request

    @property
    def presentable(self) -> bool:
        """Whether every job has an estimate to show."""
        return all(job.smoothing.presentable for job in self.jobs)

    @property
    def improvements(self) -> int:
        """The number of lines that are due in a stream by now, without the last one."""
        if not self.request.stream or not self.presentable:
            return 0
        share = min(job.smoothing.samples / job.smoothing.query.count for job in self.jobs)
        return sum(share >= improvement for improvement in IMPROVEMENTS)

    def without(self, job: Job, attribution: Attribution) -> UnderWay | Finished:
        """The state once the job is done, with the attribution that it gave."""
        attributions = [attribution if index == job.index else each for index, each in enumerate(self.attributions)]
        left = [each for each in self.jobs if each is not job]
        state = replace(self, attributions=attributions, jobs=left)
        return state if left else state.concluded()

    def concluded(self) -> Finished:
        """The item as it stands, with the estimates of the jobs that are left."""
        estimates = {job.index: job.smoothing.estimate() for job in self.jobs}
        return Finished(
            self.request,
            self.decoded.size,
            self.decoded.geometry,
            self.decoded.photograph,
            self.probabilities,
            self.scores,
            [estimates[index] if found is None else found for index, found in enumerate(self.attributions)],
        )


@dataclass(frozen=True, eq=False)
class Finished:
    """An item with all that its answer says.

    size: (width, height) of the picture that was sent.
    photograph: upright, no larger than an answer shows it; None for a prediction.
    probabilities, scores: (classes) on the host.
    attributions: one for each query.
    seconds: by stage.
    """

    request: Request
    size: tuple[int, int]
    geometry: Geometry
    photograph: Image.Image | None
    probabilities: Tensor
    scores: Tensor
    attributions: Sequence[Attribution]
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """An item that gets a refusal for an answer.

    request: None where it could not be read.
    seconds: by stage.
    """

    refusal: Refusal
    request: Request | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """An item that asks for the description of the archive.

    seconds: by stage.
    """

    request: Request
    seconds: Mapping[str, float] = field(default_factory=dict)


Outcome = Union[Finished, Refused, Described]
State = Union[Admitted, Decoded, UnderWay, Finished, Refused, Described]


@dataclass(eq=False)
class Item:
    """The place of one picture in the loop. It is equal to itself alone: two clients may send the same bytes.

    deadline: on the loop's clock; infinite for none.
    served: rows of chunks that it was given.
    passed_over: calls that had no time left to decode its picture.
    lines: of its stream that were sent.
    seconds: wall time by stage.
    """

    state: State
    deadline: float = math.inf
    served: float = 0.0
    passed_over: int = 0
    lines: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def done(self) -> bool:
        """Whether its state is an outcome."""
        return isinstance(self.state, (Finished, Refused, Described))

    @property
    def undecoded(self) -> bool:
        """Whether its picture is still to be decoded."""
        return isinstance(self.state, Admitted)

    @property
    def wants_chunks(self) -> bool:
        """Whether its next piece of work is a chunk's."""
        if isinstance(self.state, Admitted):
            return self.state.costly
        if isinstance(self.state, Decoded):
            return self.state.through_input
        return isinstance(self.state, UnderWay)

    @property
    def long(self) -> bool:
        """Whether it takes chunks: more than the pass that predictions share."""
        request = self.state.request
        return not self.done and request is not None and request.work > 1

    @property
    def work_left(self) -> int:
        """Forward passes still to do, roughly."""
        if isinstance(self.state, UnderWay):
            return sum(job.smoothing.query.price * job.smoothing.left for job in self.state.jobs)
        return self.state.request.work if isinstance(self.state, (Admitted, Decoded)) else 0

    @property
    def improvements(self) -> int:
        """The number of lines that are due in its stream by now, without the last one."""
        return self.state.improvements if isinstance(self.state, UnderWay) else 0

    def refuse(self, refusal: Refusal) -> None:
        """Ends it with a refusal."""
        self.state = Refused(refusal, self.state.request)

    def settled(self) -> Outcome:
        """Its outcome, with the seconds that it took. Raises ValueError before it is done."""
        if isinstance(self.state, (Finished, Refused, Described)):
            return replace(self.state, seconds=dict(self.seconds))
        raise ValueError("an item that is not done has no outcome")

    def presented(self) -> Finished:
        """The item as it stands, for a line of its stream. Raises ValueError where it is not under way."""
        if isinstance(self.state, UnderWay):
            return replace(self.state.concluded(), seconds=dict(self.seconds))
        raise ValueError("an item that is not under way has nothing to present")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall time of the work that is done inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


@dataclass(eq=False)
class OpenRow:
    """A row that waits for its answer: the protocol that it was sent by, and an item for each of its pictures."""

    protocol: RowProtocol
    items: list[Item] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether all of its items are."""
        return all(item.done for item in self.items)

    @property
    def streaming(self) -> Item | None:
        """The item that has a line of its stream to send; None where there is none."""
        return next((item for item in self.items if item.improvements > item.lines), None)

    def refuse(self, refusal: Refusal) -> None:
        """Ends all of its items with a refusal."""
        for item in self.items:
            item.refuse(refusal)
