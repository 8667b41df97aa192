"""RISE: the mean of random masks, each weighted by the probability of the image that it covers.

Petsiuk, Das, Saenko 2018, equation 6: cells are left visible with probability 1/2, enlarged bilinearly, and shifted.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from heatserve.engine import Method, Sampling, ScoreSignal, sample_seed

CELLS, VISIBLE = 4, 0.5


class Masks:
    """Copies of an image, each covered by a random mask."""

    random: ClassVar[bool] = True
    parameters: ClassVar[tuple[str, ...]] = ("seed",)

    def __init__(self, image: Tensor, seed: int) -> None:
        self._image, self._seed = image, seed

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Masks:
        return cls(image, sampling.seed)

    def draw(self, first: int, count: int) -> Tensor:
        return self._masks(first, count)[:, None] * self._image

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        masks = self._masks(first, len(attributions))
        return attributions[:, None, None] * masks / VISIBLE

    def _masks(self, first: int, count: int) -> Tensor:
        return torch.stack([self._mask(number) for number in range(first, first + count)]).to(self._image)

    def _mask(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(sample_seed(self._seed, number))
        height, width = self._image.shape[1:]
        cells = (torch.rand((CELLS + 1, CELLS + 1), generator=generator) < VISIBLE).float()
        rows, columns = -(-height // CELLS), -(-width // CELLS)
        size = ((CELLS + 1) * rows, (CELLS + 1) * columns)
        large = nn.functional.interpolate(cells[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        top, left = (int(torch.randint(side, (), generator=generator)) for side in (rows, columns))
        return large[top : top + height, left : left + width]


def probability(signal: ScoreSignal) -> Tensor:
    return signal.logits.softmax(1).gather(1, signal.targets[:, None])[:, 0]


METHOD = Method(
    "visible",
    "mean of random masks, weighted by the probability of what they leave visible",
    "Petsiuk et al. 2018",
    "score",
    probability,
    lambda attribution: attribution,
    draws=Masks,
    samples=200,
    display="maximum",
)
