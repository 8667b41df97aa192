"""Statistics that need more than a weighed mean: of scores with their masks, and of a finite list of draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .sampling import Masked, Series
from .statistic import relative


class Covariance:
    """The covariance of the draws' scores with their masks, over the mean mask: a map, with its standard error.

    `sum_n (y_n - mean y) (m_n - p) / ((n - 1) p)`, m_n the mask of draw n and p its known mean. It is the mean of
    `y m / p`, less the mean score, without the noise that the mean score would add: a constant in the score changes
    nothing.

    It keeps sums in float64 where the device has it, with scores counted from the first one.
    """

    kind = "covariance"

    def __init__(self, draws: Masked) -> None:
        self.samples = 0
        self._draws = draws
        self._first: Tensor | None = None
        self._score: Tensor
        #: The sums of `m`, `m^2`, `y m`, `y m^2` and `y^2 m^2`, where m is the mask less its mean.
        self._sums: tuple[Tensor, ...]

    def update(self, scores: Tensor) -> None:
        """Takes the scores of the next draws, (n)."""
        precise = torch.float32 if scores.device.type == "mps" else torch.float64
        masks = self._draws.masks(self.samples, len(scores)).to(precise) - self._draws.mean_mask
        scores = scores.to(precise)
        if self._first is None:
            self._first, self._score = scores[0].clone(), torch.zeros_like(scores[0])
            self._sums = tuple(torch.zeros_like(masks[0]) for _ in range(5))
        scores = scores - self._first
        self._score = self._score + scores.sum()
        # A product with a vector adds up the masks without a copy of them for each sum.
        squares, ones = masks.square().flatten(1), torch.ones_like(scores)
        masks = masks.flatten(1)
        found = (ones @ masks, ones @ squares, scores @ masks, scores @ squares, scores.square() @ squares)
        for total, of in zip(self._sums, found):
            total += of.reshape(total.shape)
        self.samples += len(scores)

    def value(self) -> Tensor:
        """The map so far, float32, (H, W)."""
        return self._value().float()

    def standard_error(self) -> Tensor:
        """The estimated standard deviation of `value()`, element by element, float32; NaN below two samples."""
        return self._squared_errors().sqrt().float()

    def relative_error(self) -> Tensor:
        """The L2 norm of the error over the L2 norm of the true map, one number on the device."""
        return relative(self._squared_errors().sum().sqrt(), self.size())

    def size(self) -> Tensor:
        """The L2 norm of `value()`, in the precision of the sums."""
        norm: Tensor = torch.linalg.vector_norm(self._value())
        return norm

    def _value(self) -> Tensor:
        mask, _, product, _, _ = self._sums
        return (product - self._score / self.samples * mask) / (max(1, self.samples - 1) * self._draws.mean_mask)

    def _squared_errors(self) -> Tensor:
        n, mean = self.samples, self._score / self.samples
        if n < 2:
            return torch.full_like(self._sums[0], math.nan)
        _, square, _, single, double = self._sums
        spread = double - 2 * mean * single + mean**2 * square
        terms = spread / self._draws.mean_mask**2
        # n / (n - 1) makes up for the mean score, which is of the same draws.
        return (terms - (n - 1) ** 2 / n * self._value() ** 2).clamp_min(0) / (n - 1) ** 2 * (n / (n - 1))


class Combined:
    """The answer that a finite list of draws makes of the scores of the first of them; it has no error.

    It keeps one number for each draw.
    """

    kind = "combined"

    def __init__(self, draws: Series) -> None:
        self.samples = 0
        self._draws = draws
        self._scores: list[Tensor] = []

    def update(self, scores: Tensor) -> None:
        """Takes the scores of the next draws, (n)."""
        self._scores.append(scores)
        self.samples += len(scores)

    def value(self) -> Tensor:
        """The answer so far, float32."""
        return self._draws.combine(torch.cat(self._scores))

    @property
    def share_done(self) -> float:
        """The share of all draws that are done, from 0 to 1."""
        return self.samples / self._draws.count
