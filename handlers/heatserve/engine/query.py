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
    samples > 1 smooths the method, whichever it is: noise of `noise_level` times the image's range.
    """

    method: str = "gradcam"
    target: int | None = None
    rank: int = 0
    contrast: int | None = None
    layer: str | None = None
    samples: int = 1
    noise_level: float = 0.15
    seed: int = 0

    @property
    def smoothed(self) -> bool:
        """Whether it takes steps of noisy copies (`Explainer.smooth`); else one forward pass answers it."""
        return self.samples > 1 or METHODS[self.method].statistic != "mean"

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
    |standard error| / |values| (both None unless smoothed).
    """

    query: Query
    values: Tensor
    samples_used: int = 1
    standard_error: Tensor | None = None
    relative_error: Tensor | None = None

    @property
    def map(self) -> Tensor:
        """The attribution reduced to a picture's shape, (H, W) or (h, w)."""
        return METHODS[self.query.method].reduce(self.values)
