"""Occlusion's draws: the image with one window of it set to 0. Zeiler and Fergus 2014, section 4.2."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ..sampling import Sampling

#: A window's stride is the view's side divided by this, rounded up; its side is two strides.
STRIDES = 14
#: The most draws that a view of any size has: the image itself, and 13 x 13 windows.
MOST = 1 + (STRIDES - 1) ** 2

#: The rows and the columns of a window, as (first, one beyond the last).
Window = tuple[tuple[int, int], tuple[int, int]]


class Windows:
    """The image itself as draw 0, then copies of it with one window each set to 0.

    image: (C, H, W).
    count: the number of draws.

    Each window is the one that is farthest from those before it, from the middle on: the first few lie all over the
    image, and the others fill the gaps.
    """

    random: ClassVar[bool] = False
    parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self._windows = windows(*image.shape[1:])
        self.count = 1 + len(self._windows)

    @classmethod
    def of(cls, image: Tensor, sampling: Sampling) -> Windows:
        """The draws of an image, (C, H, W)."""
        return cls(image)

    def draw(self, first: int, count: int) -> Tensor:
        """Draws number `first` to `first + count - 1`, (count, C, H, W)."""
        copies = self._image.repeat(count, 1, 1, 1)
        for copy, number in zip(copies, range(first, first + count)):
            if number:
                (top, bottom), (left, right) = self._windows[number - 1]
                copy[:, top:bottom, left:right] = 0
        return copies

    def weigh(self, first: int, attributions: Tensor) -> Tensor:
        """The scores as they are."""
        return attributions

    def combine(self, scores: Tensor) -> Tensor:
        """The map (H, W): the mean drop of the score, over the windows that cover each pixel.

        scores: of the first draws, (n).

        A pixel that no window has covered yet gets the drop of the window whose centre is nearest.
        """
        on_host = scores.detach().cpu().double()
        drops = on_host[0] - on_host[1:]
        done = self._windows[: len(drops)]
        rows, columns = (_within([one[axis] for one in done], self._image.shape[1 + axis]) for axis in (0, 1))
        covering = rows.T @ columns
        mean = (rows * drops[:, None]).T @ columns / covering.clamp_min(1)
        far = [_squared_distances([one[axis] for one in done], self._image.shape[1 + axis]) for axis in (0, 1)]
        # One row of pixels at a time: the distances of all pixels from all windows may fill the memory.
        for y in (covering == 0).any(1).nonzero().flatten().tolist():
            nearest = (far[0][:, y, None] + far[1]).argmin(0)
            mean[y] = torch.where(covering[y] == 0, drops[nearest], mean[y])
        return mean.float().to(scores.device)


@lru_cache(maxsize=8)
def windows(height: int, width: int) -> tuple[Window, ...]:
    """The windows of a view in the order of their turns, each as its rows and columns."""
    down, across = (_intervals(side) for side in (height, width))
    places = [(rows, columns) for rows in down for columns in across]
    centres = torch.tensor([[sum(rows) / height, sum(columns) / width] for rows, columns in places], dtype=torch.double)
    far = -((centres - 1) ** 2).sum(1)  # the first one is the middle
    order: list[int] = []
    for _ in places:
        order.append(int(far.argmax()))
        away = ((centres - centres[order[-1]]) ** 2).sum(1)
        far = away if len(order) == 1 else torch.minimum(far, away)
        far[order] = -1
    return tuple(places[number] for number in order)


def _intervals(side: int) -> list[tuple[int, int]]:
    """The windows' extents along one axis; the last one is cut at the image's border."""
    stride = -(-side // STRIDES)
    count = 1 + max(0, -(-(side - 2 * stride) // stride))
    return [(k * stride, min(side, (k + 2) * stride)) for k in range(count)]


def _within(extents: list[tuple[int, int]], side: int) -> Tensor:
    """1 where a place lies in an extent and else 0, (extents, side), float64."""
    places = torch.arange(side)
    return torch.stack([(places >= low) & (places < high) for low, high in extents]).double()


def _squared_distances(extents: list[tuple[int, int]], side: int) -> Tensor:
    """The squared distance of each place from the middle of each extent, (extents, side), in sides."""
    middles = torch.tensor([(low + high - 1) / 2 for low, high in extents], dtype=torch.double)
    return ((torch.arange(side) - middles[:, None]) / side) ** 2
