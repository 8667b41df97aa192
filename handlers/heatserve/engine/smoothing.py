"""Smoothing: any method, averaged over noisy copies of the input (Smilkov et al. 2017), with its Monte-Carlo error.

Noise depends on (seed, sample index) alone and is drawn sample by sample, so neither the chunk nor the other rows of a
batch change which copies are seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .methods import METHODS
from .query import Attribution, Query

_MASK = (1 << 64) - 1
#: Fewer samples say too little of their own error to end by it.
FEWEST = 10


def sample_seed(seed: int, index: int) -> int:
    """A 63-bit generator seed for one sample, by SplitMix64's mixing: neighbouring seeds share no samples."""
    value = seed & _MASK
    for step in (0, index + 1):
        value = (value + (step + 1) * 0x9E3779B97F4A7C15) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value >> 1


class Noise:
    """Noisy copies of one image: `x + e`, `e ~ N(0, sigma^2)`, `sigma = noise_level * (max x - min x)`.

    image: (C, H, W). The spread stays on the device: drawing copies nothing to the host.
    """

    def __init__(self, image: Tensor, noise_level: float, seed: int) -> None:
        self._image = image
        self._sigma = noise_level * (image.amax() - image.amin())
        self._seed = seed
        self._generator = torch.Generator(device=image.device)

    def draw(self, first: int, count: int) -> Tensor:
        """Copies number `first` to `first + count - 1`, shape (count, C, H, W)."""
        copies = torch.empty((count, *self._image.shape), device=self._image.device, dtype=self._image.dtype)
        for offset in range(count):
            self._generator.manual_seed(sample_seed(self._seed, first + offset))
            copies[offset].normal_(generator=self._generator)
        return copies.mul_(self._sigma).add_(self._image)


class Statistic:
    """A running statistic of sampled attributions and the standard error of it. Memory does not grow with samples.

    kind: "mean" of the attributions, "mean_square", or "variance" (population, 1/n). Sums of powers about the first
    sample, a chunk's in its own precision and over chunks in float64 where the device has it: so chunks of any size
    give the same answer but for rounding.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.samples = 0
        self._origin: Tensor | None = None
        self._sums: list[Tensor] = []

    def update(self, attributions: Tensor) -> None:
        """Takes further samples, shape (n, ...)."""
        values = attributions.square() if self.kind == "mean_square" else attributions
        if self._origin is None:
            precise = torch.float32 if values.device.type == "mps" else torch.float64
            self._origin = values[0].clone()
            powers = 4 if self.kind == "variance" else 2
            self._sums = [torch.zeros_like(self._origin, dtype=precise) for _ in range(powers)]
        centred = values - self._origin
        power = centred
        for number, total in enumerate(self._sums):
            power = power * centred if number else centred
            total += power.sum(0)
        self.samples += len(attributions)

    def _moments(self) -> list[Tensor]:
        """Mean about the origin, then the central moments of second (and up to fourth) order."""
        raw = [total / self.samples for total in self._sums]
        mean = raw[0]
        central = [mean, (raw[1] - mean**2).clamp_min(0)]
        if len(raw) == 4:
            fourth = raw[3] - 4 * mean * raw[2] + 6 * mean**2 * raw[1] - 3 * mean**4
            central.append(fourth.clamp_min(0))
        return central

    def value(self) -> Tensor:
        """The statistic so far, float32, the shape of one attribution."""
        assert self._origin is not None
        moments = self._moments()
        return (moments[1] if self.kind == "variance" else moments[0] + self._origin).float()

    def standard_error(self) -> Tensor:
        """The estimated standard deviation of `value()`, element by element, float32; NaN below two samples.

        Of a mean: `s / sqrt(n)`. Of a variance: `sqrt((m4 - m2^2) / n)`, its large-sample form.
        """
        moments, n = self._moments(), self.samples
        if n < 2:
            return torch.full_like(moments[0], math.nan).float()
        if self.kind == "variance":
            return ((moments[2] - moments[1] ** 2).clamp_min(0) / n).sqrt().float()
        return (moments[1] / (n - 1)).sqrt().float()

    def relative_error(self) -> Tensor:
        """|standard error| / |value| in the L2 norm: one number for the whole attribution, on the device."""
        error, size = self.norms()
        # Samples that are all alike have no error, also where they are all 0.
        return torch.where(error == 0, error, error / size).float()

    def norms(self) -> tuple[Tensor, Tensor]:
        """|standard error| and |value|, in the precision of the sums: squares of small gradients are very small."""
        precise = self._sums[0].dtype
        error, size = (torch.linalg.vector_norm(each, dtype=precise) for each in (self.standard_error(), self.value()))
        return error, size


class Smoothing:
    """A smoothed explanation in progress: which samples it has seen, and what they say so far.

    image: (C, H, W). `query.target` must be fixed (the class that the clean image was found to be).
    """

    def __init__(self, image: Tensor, query: Query) -> None:
        assert query.target is not None
        self.query = query
        self._noise = Noise(image, query.noise_level, query.seed)
        self._statistic = Statistic(METHODS[query.method].statistic)
        self._ended = False

    @property
    def samples(self) -> int:
        """Samples seen so far."""
        return self._statistic.samples

    @property
    def left(self) -> int:
        """Samples still to see."""
        return 0 if self._ended else max(0, self.query.count - self.samples)

    @property
    def presentable(self) -> bool:
        """Whether `estimate` has something to say, with its error: that takes two samples."""
        return not self.left or self.samples >= max(2, METHODS[self.query.method].min_samples)

    def draw(self, count: int) -> Tensor:
        """The next noisy copies, (count, C, H, W)."""
        return self._noise.draw(self.samples, count)

    def update(self, attributions: Tensor) -> None:
        """Takes the attributions of the copies that were drawn last, (count, ...)."""
        self._statistic.update(attributions)
        self._ended = self.samples >= FEWEST and self._reached()

    def _reached(self) -> bool:
        """Whether the error is as small as was asked for. Only who asked waits for the device here."""
        if self.query.standard_error is None or self.samples < 2:
            return False
        error, size = self._statistic.norms()
        return bool(error <= self.query.standard_error * size)

    def estimate(self) -> Attribution:
        """The attribution so far, with its error; needs one sample at least (two for a variance)."""
        statistic = self._statistic
        return Attribution(
            self.query,
            statistic.value(),
            statistic.samples,
            statistic.standard_error(),
            statistic.relative_error(),
            self._reached(),
        )
