"""The overlay: the heatmap over the photograph, and the part that the model never saw in dark grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colour import DIVERGING, table
from .display import strength

#: The level of each grey level at half its brightness.
_DIMMED = [round(level * 0.5) for level in range(256)]

_Box = tuple[int, int, int, int]  # left, top, right, bottom


def overlay(
    picture: Image.Image,
    heat: NDArray[np.uint8],
    seen: tuple[slice, slice],
    colormap: str,
    opacity: float,
    signed: bool = False,
) -> Image.Image:
    """An upright RGB picture with the grey levels `heat` [H, W] as colours over it. The result is RGB of the same size.

    seen: the rows and columns that the model saw.

    A pixel in `seen` becomes (1 - a) photo + a colour(heat), with a = opacity * sqrt(heat / 255), to 1/255.
    Any other pixel becomes the photograph's luma (ITU-R BT.601) at half its brightness.

    A constant a would tint everything that the model ignored with the map's lowest colour. A proportional a would hide
    the extent of a region. The root shows the region and leaves the rest of the photograph as it is.

    signed: whether the levels are those of `signed_grey`. The colours are then red above zero and blue below it for
    every colour map, and a is opacity * sqrt(|value| / scale).

    Raises ValueError for an unknown colour map, an opacity outside 0..1, or levels of another size.
    """
    width, height = picture.size
    if heat.shape != (height, width):
        raise ValueError(f"heat {heat.shape} must be [{height}, {width}], as the picture.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"The opacity is {opacity}; allowed: 0 to 1.")
    colours_of, shares = (DIVERGING, strength()) if signed else (table(colormap), np.arange(256) / 255)
    alphas = np.rint(255 * opacity * np.sqrt(shares)).astype(int).tolist()
    drawn = picture.convert("RGB")  # a copy in any case
    (top, bottom, _), (left, right, _) = seen[0].indices(height), seen[1].indices(width)
    box = (left, top, right, bottom)
    for around in _around(box, width, height):
        drawn.paste(drawn.crop(around).convert("L").point(_DIMMED).convert("RGB"), around)
    if top < bottom and left < right:
        levels = Image.fromarray(np.ascontiguousarray(heat[seen]))
        opacities = levels.point(alphas)
        levels.putpalette(colours_of.tobytes())
        drawn.paste(levels.convert("RGB"), box, opacities)
    return drawn


def _around(box: _Box, width: int, height: int) -> list[_Box]:
    """The boxes that fill a picture around a box: above, below, on the left and on the right, those with any pixel."""
    left, top, right, bottom = box
    if top >= bottom or left >= right:
        return [(0, 0, width, height)]
    sides = [(0, 0, width, top), (0, bottom, width, height), (0, top, left, bottom), (right, top, width, bottom)]
    return [each for each in sides if each[0] < each[2] and each[1] < each[3]]
