"""Score-CAM's draws: the image under each channel of a layer's activation. Wang et al. 2020, section 3.2."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..sampling import Sampling

#: Beside the range of a channel, which may be 0, in a denominator; pytorch-grad-cam's.
_EPSILON = 1e-8


class Channels:
    """Copies of an image, each multiplied by one channel of the activation: enlarged, and scaled to 0 to 1.

    image: (C, H, W).
    activations: of the image itself, (K, h, w).
    most: the number of channels to keep. The others are never drawn, and would stay in memory for nothing.
    count: K.

    The channels with the largest L2 norm come first: at equal weights they make most of the map.
    """

    random: ClassVar[bool] = False
    parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, image: Tensor, activations: Tensor, most: int) -> None:
        order = torch.linalg.vector_norm(activations.flatten(1), dim=1).argsort(descending=True, stable=True)
        self._image, self._activations = image, activations[order[:most]]
        self.count = len(activations)

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Channels:
        """The draws of an image, (C, H, W)."""
        assert sampling.prepared is not None  # the activation, which the method's row asks for
        return cls(image, sampling.prepared, sampling.samples)

    def draw(self, first: int, count: int) -> Tensor:
        """Draws number `first` to `first + count - 1`, (count, C, H, W)."""
        some = self._activations[first : first + count, None]
        large = nn.functional.interpolate(some, self._image.shape[1:], mode="bilinear")
        low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
        return ((large - low) / (high - low + _EPSILON)).to(self._image.dtype) * self._image

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        """The scores as they are."""
        return attributions

    def combine(self, scores: Tensor) -> Tensor:
        """`ReLU(sum_k w_k A_k)`, (h, w), w the softmax of the scores of the channels so far. Equations 2 and 3.

        scores: of the first draws, (n).
        """
        # A contrast with the target itself has a score of 0 everywhere, and must not look like a map.
        weights = (scores.softmax(0) * scores.any()).to(self._activations.dtype)
        return torch.einsum("k,khw->hw", weights, self._activations[: len(scores)]).relu().float()
