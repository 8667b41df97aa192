"""Integrated gradients: the mean gradient along the straight path from a baseline to the image, times their difference.

Sundararajan, Taly, Yan 2017, equation 1, with the Gauss-Legendre rule and a baseline of 0.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from heatserve.engine import InputSignal, Method, Sampling


class Path:
    """Points on the way from 0 to an image, in an order that covers the way however early it is cut off."""

    random: ClassVar[bool] = False
    parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, image: Tensor, samples: int) -> None:
        nodes, weights = (torch.from_numpy(part).to(image) for part in np.polynomial.legendre.leggauss(samples))
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(0)).to(image.device)
        self._image = image
        # The rule's weights sum to 2, on a way of length 2; the mean divides by the number of samples.
        self._ways, self._weights = (nodes[order] + 1) / 2, weights[order] / 2 * samples

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Path:
        return cls(image, sampling.samples)

    def draw(self, first: int, count: int) -> Tensor:
        return self._ways[first : first + count, None, None, None] * self._image

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        weights = self._weights[first : first + len(attributions), None, None, None]
        return attributions * weights * self._image


def gradients(signal: InputSignal) -> Tensor:
    return signal.gradients


METHOD = Method(
    "straight_path",
    "gradients along the way from black to the image, times the image",
    "Sundararajan et al. 2017",
    "input",
    gradients,
    lambda attribution: attribution.sum(0).abs(),
    draws=Path,
    samples=20,
)
