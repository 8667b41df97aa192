"""What is asked of one image, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .methods import METHODS


@dataclass(frozen=True)
class Query:
    """What is asked of one image.

    The score that is explained is the pre-softmax `y_c`; with `contrast` it is `y_c - y_contrast`. `target` is a class
    index; None means the class that the clean image ranks at `rank` (0: the predicted one).
    samples > 1 smooths the method, whichever it is: noise of `noise_level` times the image's range. None is the
    method's own number: 50 for SmoothGrad and its kin, 1 for the others. With `standard_error` the samples end as soon
    as the relative standard error of the attribution is at most that; `samples` is then the most that are taken.

    Raises ValueError for what no network can answer.
    """

    method: str = "gradcam"
    target: int | None = None
    rank: int = 0
    contrast: int | None = None
    layer: str | None = None
    samples: int | None = None
    noise_level: float = 0.15
    seed: int = 0
    standard_error: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"there is no method {self.method!r}; there are: {', '.join(METHODS)}")
        method = METHODS[self.method]
        if self.samples is None:
            object.__setattr__(self, "samples", method.samples)
        if self.count < method.min_samples:
            raise ValueError(f"{self.method} needs at least {method.min_samples} samples, not {self.samples}")
        if min(self.target or 0, self.contrast or 0, self.rank) < 0:
            raise ValueError("target, contrast and rank are class indices and ranks: they start at 0")
        if self.standard_error is not None and not (self.standard_error > 0 and self.smoothed):
            raise ValueError("standard_error must be above 0, and belongs to a method with samples")

    @property
    def count(self) -> int:
        """How many samples are averaged."""
        assert self.samples is not None
        return self.samples

    @property
    def smoothed(self) -> bool:
        """Whether it takes steps of noisy copies (`Explainer.smooth`); else one forward pass answers it."""
        return self.count > 1 or METHODS[self.method].statistic != "mean"

    @property
    def through_input(self) -> bool:
        """Whether the gradient has to reach the input, which it cannot beyond the cut at a tap."""
        return METHODS[self.method].signal == "input"

    def at(self, target: int) -> Query:
        """The same query with its target fixed, unless it was fixed already."""
        return self if self.target is not None else replace(self, target=target)


@dataclass(frozen=True)
class Attribution:
    """An answer. values: (C, H, W) from the input's gradient, (h, w) from a layer; float32, on the model's device.

    `query.target` is the class that was explained. standard_error has the shape of `values`, relative_error is
    |standard error| / |values| (both None unless smoothed). reached: whether it is as small as the query asked for.
    """

    query: Query
    values: Tensor
    samples_used: int = 1
    standard_error: Tensor | None = None
    relative_error: Tensor | None = None
    reached: bool = False

    @property
    def map(self) -> Tensor:
        """The attribution reduced to a picture's shape, (H, W) or (h, w)."""
        return METHODS[self.query.method].reduce(self.values)
