"""Sums of gradients along paths from a baseline to the image, and gradients of another rule at ReLUs.

The methods of paths share out the difference between the scores of image and baseline among the image's values.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..method import Method
from ..noise import seeded_generator
from ..sampling import Sampling, sample_seed
from .gradients import gradient, strongest_channel, summed


class Path:
    """Points on the straight path from a baseline of 0, which is the mean colour, to one image.

    image: (C, H, W).

    The points are the middles of `samples` equal pieces (Captum's "riemann_middle"), so that all count alike. Their
    order spreads them over the whole path, however early it is cut off.
    """

    random: ClassVar[bool] = False
    parameters: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[int] = 2

    def __init__(self, image: Tensor, samples: int) -> None:
        self._image = image
        order = torch.tensor(_spread_out(samples), dtype=torch.float64)
        self._ways = ((order + 0.5) / samples).to(image.device, image.dtype)[:, None, None, None]

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Path:
        """The points on the path to an image, (C, H, W)."""
        return cls(image, sampling.samples)

    def draw(self, first: int, count: int) -> Tensor:
        """Points number `first` to `first + count - 1`, (count, C, H, W)."""
        return self._ways[first : first + count] * self._image

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        """The gradients times the difference between image and baseline."""
        return attributions * self._image

    def refer(self) -> Tensor:
        """The image and the baseline, (2, C, H, W)."""
        return torch.stack([self._image, torch.zeros_like(self._image)])

    def facts(self, value: Tensor, scores: Tensor) -> Mapping[str, float]:
        """The completeness error: how far the sum of the attribution is from the difference of the scores, as a share
        of that difference. Sundararajan et al. 2017, proposition 1."""
        difference = scores[0] - scores[1]
        return {"completeness_error": float((value.sum() - difference).abs() / difference.abs())}


def _spread_out(count: int) -> list[int]:
    """The numbers below `count`, of which any first few lie evenly over the range, the middle first.

    Each is the one nearest to the next fraction of van der Corput's sequence, 1/2, 1/4, 3/4, 1/8 ..., that is left.
    """
    bits = count.bit_length()
    fractions = (int(f"{number:0{bits}b}"[::-1], 2) / 2**bits for number in range(1, count + 1))
    left, order = list(range(count)), []
    for fraction in fractions:
        place = bisect_left(left, fraction * count - 0.5)
        near = [index for index in (place - 1, place) if 0 <= index < len(left)]
        order.append(left.pop(min(near, key=lambda index: abs(left[index] + 0.5 - fraction * count))))
    return order


class Mixtures:
    """Random points between one image and random baselines: `x' + alpha (x - x')`, alpha uniform from 0 to 1.

    image: (C, H, W).

    Erion et al. 2021 draw baselines from the training set, which an archive does not have. Here each baseline is the
    image itself with its pixels in random order: it has the image's colours, and nothing of its shapes. Shuffled inputs
    are the references of Shrikumar et al. 2017 where no other baseline is natural.
    """

    random: ClassVar[bool] = True
    parameters: ClassVar[tuple[str, ...]] = ("seed",)
    generator = staticmethod(seeded_generator)

    def __init__(self, image: Tensor, seed: int) -> None:
        self._image = image
        self._seed = seed
        self._generator = torch.Generator(device=image.device)

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Mixtures:
        """The random points between an image, (C, H, W), and its baselines."""
        return cls(image, sampling.seed)

    def draw(self, first: int, count: int) -> Tensor:
        """Points number `first` to `first + count - 1`, (count, C, H, W)."""
        baselines, ways = self._pairs(first, count)
        return baselines + ways * (self._image - baselines)

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        """The gradients times the differences between the image and each baseline."""
        baselines, _ = self._pairs(first, len(attributions))
        return attributions * (self._image - baselines)

    def _pairs(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """The baselines, (count, C, H, W), and how far from them to the image the points lie, (count, 1, 1, 1)."""
        pixels = self._image.flatten(1)
        baselines, ways = torch.empty_like(pixels.expand(count, -1, -1)), self._image.new_empty(count, 1, 1, 1)
        for offset in range(count):
            self._generator.manual_seed(sample_seed(self._seed, first + offset))
            order = torch.randperm(pixels.shape[1], generator=self._generator, device=pixels.device)
            baselines[offset] = pixels[:, order]
            ways[offset].uniform_(generator=self._generator)
        return baselines.reshape(count, *self._image.shape), ways


def guided_gradcam(guided: Tensor, cam: Tensor) -> Tensor:
    """Guided backpropagation (N, C, H, W) times Grad-CAM (N, h, w), which is enlarged bilinearly.

    Selvaraju et al. 2017, section 3.2.
    """
    return guided * nn.functional.interpolate(cam[:, None], guided.shape[2:], mode="bilinear")


_FAILS = (
    "It fails the randomisation tests of Adebayo et al. 2018: it hardly changes when the network's upper layers get "
    "random weights, so it shows the picture's edges more than the network's reasons. ReLU and ReLU6 follow the rule; "
    "other activations keep their ordinary gradient, and a network without any ReLU is refused."
)

PATHS = (
    Method(
        "integrated_gradients",
        "gradients along the path from the mean colour to the input, times their difference; signed",
        "Sundararajan et al. 2017",
        "input",
        gradient,
        summed,
        draws=Path,
        samples=50,
        signed=True,
        definition="x * mean_k dy_c/dx((k - 1/2) / n * x), k = 1 to n; the map is the sum over the channels",
        reference="Captum IntegratedGradients (riemann_middle)",
        caveat="The baseline is 0 after preprocessing, the mean colour: a pixel of that colour is 0 in the map. Two "
        "more passes, of the image and of the baseline, give `completeness_error`.",
    ),
    Method(
        "expected_gradients",
        "gradients between the input and its shuffled pixels, times their difference; signed",
        "Erion et al. 2021",
        "input",
        gradient,
        summed,
        draws=Mixtures,
        samples=50,
        signed=True,
        definition="mean_n (x - x'_n) * dy_c/dx(x'_n + a_n (x - x'_n)), a_n ~ U(0, 1); the map is the sum over the "
        "channels",
        reference="Captum GradientShap, given the same baselines and numbers",
        caveat="An archive has no training pictures, which the authors draw `x'` from. Here `x'` is the picture itself "
        "with its pixels in random order: the map says what the arrangement adds to the score, and nothing of what the "
        "colours add.",
    ),
    Method(
        "guided_backpropagation",
        "gradient of the class score whose negative part every ReLU holds back",
        "Springenberg et al. 2015",
        "input",
        gradient,
        strongest_channel,
        rule="guided",
        definition="dy_c/dx, with R_in = [z > 0] ReLU(R_out) at every ReLU of z",
        reference="Captum GuidedBackprop, pytorch-grad-cam GuidedBackpropReLUModel",
        caveat=_FAILS,
    ),
    Method(
        "guided_gradcam",
        "guided backpropagation times Grad-CAM",
        "Selvaraju et al. 2017",
        "layer",
        guided_gradcam,
        strongest_channel,
        factors=("guided_backpropagation", "gradcam"),
        definition="guided_backpropagation * gradcam, enlarged bilinearly to the input's size",
        reference="Captum GuidedGradCam (interpolate_mode bilinear)",
        caveat="Its first factor is guided backpropagation, and what is said there holds here.",
    ),
)
