"""Sampling: the draws that a method puts into the network in place of one image, and the weights of their attributions.

Draws may be noisy copies, points of a path, or masks. All kinds share the statistic and its error, chunks, deadlines
and streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from .noise import noise_generator, normal

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Sampling:
    """The part of a query that draws may depend on.

    samples: how many draws there are altogether.
    noise_level: the spread of noise, as a share of the image's range.
    seed: of everything that is random.
    prepared: the answer that the method's `prepare` gave to the image itself; None for a method without it.
    """

    samples: int
    noise_level: float
    seed: int
    prepared: Tensor | None = None


class Draws(Protocol):
    """The draws of one image. Draw number k is the same whatever the chunk is and whatever else is in the batch.

    random: whether the draws are independent and random. Only then their mean has a standard error, and only then they
        may end early, at one that is small enough.
    parameters: the names of the fields of Sampling that the draws depend on, beside `samples`.

    Random draws may have `generator(device)` too, the name of the generator that gives their numbers on a device.
    """

    random: ClassVar[bool]
    parameters: ClassVar[tuple[str, ...]]

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Draws:
        """The draws of an image, (C, H, W)."""

    def draw(self, first: int, count: int) -> Tensor:
        """Draws number `first` to `first + count - 1`, (count, C, H, W), on the image's device."""

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        """The weighted attributions of draws from number `first` on, (count, ...); the method's mean is over these."""


class Referred(Draws, Protocol):
    """Draws with references: a few images whose scores tell a fact about the answer.

    Each reference goes through the network once, before the draws, and costs as much as a draw.

    references: how many there are.
    """

    references: ClassVar[int]

    def refer(self) -> Tensor:
        """The references, (references, C, H, W), on the image's device."""

    def facts(self, value: Tensor, scores: Tensor) -> Mapping[str, float]:
        """Numbers about an answer by their names. value: the answer. scores: of the references, (references)."""


class Masked(Draws, Protocol):
    """Draws that are the image under masks, for the statistic "covariance".

    mean_mask: the mean of a random mask, at every place.
    """

    mean_mask: ClassVar[float]

    def masks(self, first: int, count: int) -> Tensor:
        """Masks number `first` to `first + count - 1`, (count, H, W)."""


class Series(Draws, Protocol):
    """Draws that are a finite list and together give the answer, for the statistic "combined".

    count: the number of all draws.
    """

    count: int

    def combine(self, scores: Tensor) -> Tensor:
        """The answer so far, float32, from the scores of the first draws, (n)."""


def sample_seed(seed: int, index: int) -> int:
    """A 63-bit generator seed for one draw, by SplitMix64's mixing: neighbouring seeds share no draws."""
    value = seed & _MASK
    for step in (0, index + 1):
        value = (value + (step + 1) * 0x9E3779B97F4A7C15) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value >> 1


class Noise:
    """Noisy copies of one image: `x + e`, `e ~ N(0, sigma^2)`, `sigma = noise_level * (max x - min x)`.

    image: (C, H, W).

    Smilkov et al. 2017, section 3. The spread stays on the device: drawing copies nothing to the host.
    """

    random: ClassVar[bool] = True
    parameters: ClassVar[tuple[str, ...]] = ("noise_level", "seed")
    generator = staticmethod(noise_generator)

    def __init__(self, image: Tensor, noise_level: float, seed: int) -> None:
        self._image = image
        self._sigma = noise_level * (image.amax() - image.amin())
        self._seed = seed

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Noise:
        """The noisy copies of an image, (C, H, W)."""
        return cls(image, sampling.noise_level, sampling.seed)

    def draw(self, first: int, count: int) -> Tensor:
        """Copies number `first` to `first + count - 1`, (count, C, H, W)."""
        seeds = [sample_seed(self._seed, number) for number in range(first, first + count)]
        copies = normal(seeds, self._image.shape, self._image)
        return copies.mul_(self._sigma).add_(self._image)

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        """The attributions as they are: all copies count alike."""
        return attributions
