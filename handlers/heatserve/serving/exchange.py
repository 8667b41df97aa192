"""One request on its way through the serving loop, from its admission to its answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from ..engine import Attribution, Smoothing
from ..imaging import Geometry
from .errors import Refusal
from .requests import Request

STAGES = ("decode", "forward", "explain", "render")


@dataclass(eq=False)
class Job:
    """A long explanation, and which of its exchange's answers it is."""

    exchange: Exchange
    index: int
    smoothing: Smoothing


@dataclass(eq=False)
class Exchange:
    """Its state: `refusal` set, or image waiting (`probabilities` None), or jobs left, or done.

    explains: whether it came to `/explanations`, known even where the request could not be read.
    Equal to itself alone: two clients may well send the same bytes.
    image: (3, H, W) on the model's device. probabilities, scores: (classes) on the host. seconds: by stage.
    photograph: upright, no larger than an answer shows it, None for a prediction; `size` is that of the one sent.
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
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def waiting(self) -> bool:
        """Whether its forward pass is still to come."""
        return self.refusal is None and self.probabilities is None

    @property
    def done(self) -> bool:
        return self.refusal is not None or (self.probabilities is not None and not self.jobs)

    @property
    def work_left(self) -> int:
        """Forward passes still to do, roughly."""
        if self.request is None or self.done:
            return 0
        if self.waiting:
            return self.request.work
        return sum(3 * job.smoothing.left for job in self.jobs)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the wall time of what is done inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started
