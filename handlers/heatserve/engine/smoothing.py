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
from .statistic import Statistic

_MASK = (1 << 64) - 1
#: Fewer samples say too little of their own error to end by it.
FEWEST = 10
#: By what the number of samples grows, at least, from one decision to the next.
GROWTH = 1.2


def next_decision(samples: int) -> int:
    """The smallest number of samples above `samples` at which it is decided whether they are enough: 10, 12, 15, 18 ...

    The list is the same for every request, so that no chunk has a say in where a request ends.
    """
    count = FEWEST
    while count <= samples:
        count = math.ceil(GROWTH * count)
    return count


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
        self._zeros_are_zero = True

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

    def update(self, attributions: Tensor, zeros_are_zero: bool = True) -> None:
        """Takes the attributions of the copies that were drawn last, (count, ...).

        Those beyond the decision that ends the samples are dropped. zeros_are_zero: False for a precision in which a
        small gradient becomes 0.
        """
        self._zeros_are_zero = self._zeros_are_zero and zeros_are_zero
        if self.query.standard_error is None:
            self._statistic.update(attributions)
            return
        while len(attributions) and not self._ended:
            decision = next_decision(self.samples)
            some, attributions = attributions.tensor_split([decision - self.samples])
            self._statistic.update(some)
            self._ended = self.samples == decision and self._reached()

    def _reached(self) -> bool:
        """Whether the error is as small as was asked for. Only a query that asks waits for the device here."""
        if self.query.standard_error is None or self.samples < self._fewest:
            return False
        return bool(self._relative_error() <= self.query.standard_error)

    @property
    def _fewest(self) -> int:
        """So many samples at least say how large their own error is."""
        if self._statistic.kind != "variance":
            return 2
        return max(4, min(FEWEST, self.query.count))

    def _relative_error(self) -> Tensor:
        error = self._statistic.relative_error()
        if self._zeros_are_zero:
            return error
        return torch.where(self._statistic.size() == 0, math.inf, error)

    def estimate(self) -> Attribution:
        """The attribution so far, with its error; needs one sample at least (two for a variance)."""
        statistic = self._statistic
        return Attribution(
            self.query,
            statistic.value(),
            statistic.samples,
            statistic.standard_error(),
            self._relative_error().float(),
            self._reached(),
        )
