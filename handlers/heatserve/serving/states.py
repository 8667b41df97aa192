"""The states of an item, which is one picture of a row. Each state is a frozen value of its own.

An item is admitted, then decoded, then perhaps under way for many passes. It ends in one of three outcomes: it is
finished, it is refused, or it asked for a description of the archive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Union

from torch import Tensor

from ..engine import Attribution, Explanation, alike, on_host, price_of
from ..imaging import Geometry, Opened, Photograph
from .errors import Refusal
from .requests import Request

STAGES = ("decode", "forward", "explain", "render")
#: Shares of the samples after which a stream sends a line. The last line is the finished answer.
IMPROVEMENTS = (0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Admitted:
    """An item whose request is read and bounded, and whose picture is not decoded yet.

    size: (width, height) that the picture's header promises.
    cost_ms: of decoding, as the header promises.
    costly: whether decoding it would hold up the other rows, where there is no pool.
    peak_bytes: that decoding takes, as the header promises.
    opened: the picture's file; None where it waits for a step of its own, and should not take more memory meanwhile.
    """

    request: Request
    size: tuple[int, int] = (0, 0)
    cost_ms: float = 0.0
    costly: bool = False
    peak_bytes: int = 0
    opened: Opened | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Decoded:
    """An item that waits for its first forward pass.

    image: (channels, H, W) on the model's device.
    size: (width, height) of the picture that was sent.
    photograph: as the answer shows it; None for a prediction.
    """

    request: Request
    image: Tensor
    geometry: Geometry
    size: tuple[int, int]
    photograph: Photograph | None

    @property
    def through_input(self) -> bool:
        """Whether the first pass carries a gradient back to the input, which takes as long as a chunk."""
        return any(query.through_input and not query.smoothed for query in self.request.queries)


@dataclass(frozen=True, eq=False)
class Reading:
    """The result of decoding a picture, which is still on the host, or the refusal that it ended in.

    seconds: that it took.
    """

    found: Decoded | Refusal
    seconds: float


@dataclass(frozen=True, eq=False)
class Job:
    """One map that takes many passes.

    index: of its map among those of the item.
    """

    index: int
    smoothing: Explanation


@dataclass(frozen=True, eq=False)
class Jobs:
    """Jobs of one item whose next draws are the same images: they take them together."""

    members: Sequence[Job]

    @property
    def samples(self) -> int:
        """The number of samples that each has taken."""
        return self.members[0].smoothing.samples

    @property
    def left(self) -> int:
        """The number of images that they still need, and none of them more."""
        return max(job.smoothing.left for job in self.members)

    @property
    def price(self) -> int:
        """The cost of one image, in forward passes."""
        return price_of([job.smoothing.query for job in self.members])


@dataclass(frozen=True, eq=False)
class UnderWay:
    """An item that has its prediction, and waits for further passes.

    probabilities, scores: (classes) on the host.
    attributions: one for each map; None where a job is left.
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
    def groups(self) -> list[Jobs]:
        """The jobs, those together that take the same draws."""
        return [Jobs([self.jobs[k] for k in group]) for group in alike([job.smoothing for job in self.jobs])]

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
        # On the host: another thread may write the answer, and has no part in the device.
        moved, _ = on_host([job.smoothing.estimate() for job in self.jobs])
        estimates = {job.index: each for job, each in zip(self.jobs, moved)}
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
    photograph: as the answer shows it; None for a prediction.
    probabilities, scores: (classes) on the host.
    attributions: one for each map, which is one for each query that was not dropped.
    seconds: by stage.
    """

    request: Request
    size: tuple[int, int]
    geometry: Geometry
    photograph: Photograph | None
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
