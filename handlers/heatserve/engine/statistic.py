"""The running statistic of sampled attributions, with its Monte-Carlo error."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def relative(error: Tensor, size: Tensor) -> Tensor:
    """The error over the size of the true value.

    error, size: L2 norms, of the error and of the value with its noise.
    """
    true = (size - error).clamp_min(0).sqrt() * (size + error).sqrt()
    # Samples that are all alike have an error of 0, even where they are all 0.
    return torch.where(error == 0, error, error / true)


def block_means(values: Tensor, side: int) -> Tensor:
    """The means over blocks of side x side pixels, (..., ceil(H / side), ceil(W / side)).

    values: (..., H, W). The blocks start at the upper left corner. Those at the right and lower edges hold the pixels
        that are left, and their means are over these.
    """
    planes = values.reshape(-1, 1, *values.shape[-2:])
    means = nn.functional.avg_pool2d(planes, side, ceil_mode=True, count_include_pad=False)
    return means.reshape(*values.shape[:-2], *means.shape[-2:])


class Statistic:
    """A statistic of sampled attributions and its standard error. Its memory does not grow with the samples.

    kind: "mean" of the attributions, "mean_square", or "variance" (population, 1/n).
    side: of the blocks whose means are taken of each sample, in pixels. For "mean_square" they are of the squares.

    It keeps sums of powers about the first sample, in float64 where the device has it. Chunks of any size therefore
    give the same answer but for rounding, and the fourth power of a gradient of 1e-12 is not 0.
    """

    def __init__(self, kind: str, side: int = 1) -> None:
        self.kind = kind
        self._side = side
        self.samples = 0
        self._origin: Tensor | None = None
        self._sums: list[Tensor] = []

    def update(self, attributions: Tensor) -> None:
        """Takes further samples, (n, ...)."""
        precise = torch.float32 if attributions.device.type == "mps" else torch.float64
        # On a CPU one sample in float64 fits the caches; on a GPU few launches are faster.
        for some in attributions.unbind() if attributions.device.type == "cpu" else [attributions]:
            values = some.to(precise).square() if self.kind == "mean_square" else some
            if self._side > 1:
                values = block_means(values.to(precise), self._side)
            if self._origin is None:
                first = values if values.ndim < attributions.ndim else values[0]
                self._origin = first.clone().to(precise)
                self._sums = [torch.zeros_like(self._origin) for _ in range(4 if self.kind == "variance" else 2)]
            centred = values - self._origin
            power = centred
            for number, total in enumerate(self._sums):
                power = power * centred if number else centred
                total += power.sum_to_size(total.shape)
        self.samples += len(attributions)

    def value(self) -> Tensor:
        """The statistic so far, float32, the shape of one attribution."""
        return self._value().float()

    def standard_error(self) -> Tensor:
        """The estimated standard deviation of `value()`, element by element, float32; NaN below two samples.

        That of a mean is `s / sqrt(n)`. That of a variance is estimated without bias from k-statistics (Fisher 1930),
        which takes four samples; below it is NaN.
        """
        squared, least = self._squared_errors()
        return torch.maximum(squared, least).sqrt().float()

    def size(self) -> Tensor:
        """The L2 norm of `value()`, in the precision of the sums."""
        norm: Tensor = torch.linalg.vector_norm(self._value())
        return norm

    def relative_error(self) -> Tensor:
        """The L2 norm of the error over the L2 norm of the true value, one number on the device.

        The value holds noise: on average its squared norm is the true value's plus the error's, so the error's is
        subtracted. The result is infinite where the value is no larger than its noise, and NaN where the error is.
        """
        squared, least = self._squared_errors()
        # Single estimates may be negative; only a sum that keeps them so is unbiased.
        return relative(torch.maximum(squared.sum(), least.sum()).sqrt(), self.size())

    def _value(self) -> Tensor:
        assert self._origin is not None
        moments = self._moments()
        return moments[1] if self.kind == "variance" else moments[0] + self._origin

    def _squared_errors(self) -> tuple[Tensor, Tensor]:
        """The unbiased estimates of the squared errors, element by element, and lower bounds of the squared errors.

        Both are NaN where there are too few samples. The bound for a variance (1/n) is the error of a fair coin, which
        has the smallest fourth moment.
        """
        moments, n = self._moments(), self.samples
        if n < (4 if self.kind == "variance" else 2):
            unknown = torch.full_like(moments[0], math.nan)
            return unknown, unknown
        if self.kind != "variance":
            return moments[1] / (n - 1), torch.zeros_like(moments[0])
        _, second, fourth = moments
        k2 = second * n / (n - 1)
        k4 = n**2 * ((n + 1) * fourth - 3 * (n - 1) * second**2) / ((n - 1) * (n - 2) * (n - 3))
        shrunk = ((n - 1) / n) ** 2
        return shrunk * (2 * n * k2**2 + (n - 1) * k4) / (n * (n + 1)), shrunk * 2 * k2**2 / (n * (n - 1))

    def _moments(self) -> list[Tensor]:
        """The mean about the origin, the second central moment, and for a variance the fourth."""
        raw = [total / self.samples for total in self._sums]
        mean = raw[0]
        central = [mean, (raw[1] - mean**2).clamp_min(0)]
        if len(raw) == 4:
            fourth = raw[3] - 4 * mean * raw[2] + 6 * mean**2 * raw[1] - 3 * mean**4
            central.append(fourth.clamp_min(0))
        return central
