"""RISE's draws: the image under random masks. Petsiuk, Das, Saenko 2018, section 3.2."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..noise import host_generator
from ..sampling import Sampling, sample_seed

#: Cells of a mask each way, and the probability that a cell is left visible: the paper's.
CELLS, VISIBLE = 7, 0.5


class RandomMasks:
    """Copies of an image, each under a random mask. What a mask hides becomes 0: the mean colour, where the input is
    normalised with it.

    image: (C, H, W).

    A mask is a grid of 7 x 7 cells, each visible with probability 1/2, enlarged bilinearly to eight cells' size and cut
    at a random place. The random numbers come from the host, so that they are the same on every device.
    """

    random: ClassVar[bool] = True
    parameters: ClassVar[tuple[str, ...]] = ("seed",)
    generator = staticmethod(host_generator)
    #: The mean of a mask at every place.
    mean_mask: ClassVar[float] = VISIBLE

    def __init__(self, image: Tensor, seed: int) -> None:
        self._image, self._seed = image, seed

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> RandomMasks:
        """The masked copies of an image, (C, H, W)."""
        return cls(image, sampling.seed)

    def draw(self, first: int, count: int) -> Tensor:
        """Masked copies number `first` to `first + count - 1`, (count, C, H, W)."""
        return self.masks(first, count)[:, None] * self._image

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        """The scores as they are: the statistic asks for the masks."""
        return attributions

    def masks(self, first: int, count: int) -> Tensor:
        """Masks number `first` to `first + count - 1`, (count, H, W), from 0 to 1."""
        height, width = self._image.shape[1:]
        cell = -(-height // CELLS), -(-width // CELLS)
        grids, places = [], []
        for number in range(first, first + count):
            generator = torch.Generator().manual_seed(sample_seed(self._seed, number))
            grids.append(torch.rand((CELLS, CELLS), generator=generator) < VISIBLE)
            places.append([int(torch.randint(side, (), generator=generator)) for side in cell])
        grid = torch.stack(grids)[:, None].to(self._image)
        large = nn.functional.interpolate(grid, [(CELLS + 1) * side for side in cell], mode="bilinear")[:, 0]
        return torch.stack([one[y : y + height, x : x + width] for one, (y, x) in zip(large, places)])
