"""The overlay: the heatmap over the photograph, and the part that the model never saw in dark grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colour import DIVERGING, table
from .display import strength

_DIMMED = 0.5


def overlay(
    picture: Image.Image,
    heat: NDArray[np.uint8],
    seen: NDArray[np.bool_],
    colormap: str,
    opacity: float,
    signed: bool = False,
) -> Image.Image:
    """An upright RGB picture with the grey levels `heat` [H, W] as colours over it. The result is RGB of the same size.

    A pixel in `seen` [H, W] becomes (1 - a) photo + a colour(heat), with a = opacity * sqrt(heat / 255), to 1/255.
    Any other pixel becomes the photograph's luma (ITU-R BT.601) at half its brightness.

    A constant a would tint everything that the model ignored with the map's lowest colour. A proportional a would hide
    the extent of a region. The root shows the region and leaves the rest of the photograph as it is.

    signed: whether the levels are those of `signed_grey`. The colours are then red above zero and blue below it for
    every colour map, and a is opacity * sqrt(|value| / scale).

    Raises ValueError for an unknown colour map, an opacity outside 0..1, or arrays of another size.
    """
    width, height = picture.size
    if heat.shape != (height, width) or seen.shape != (height, width):
        raise ValueError(f"heat {heat.shape} and seen {seen.shape} must be [{height}, {width}], as the picture.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"The opacity is {opacity}; allowed: 0 to 1.")
    colours_of, shares = (DIVERGING, strength()) if signed else (table(colormap), np.arange(256) / 255)
    alphas = np.rint(255 * opacity * np.sqrt(shares)).astype(int).tolist()
    photo = picture.convert("RGB")
    levels = Image.fromarray(np.ascontiguousarray(heat))
    colours = levels.copy()
    colours.putpalette(colours_of.tobytes())
    blend = Image.composite(colours.convert("RGB"), photo, levels.point(alphas))
    dimmed = photo.convert("L").point([round(level * _DIMMED) for level in range(256)])
    mask = Image.fromarray(seen.astype(np.uint8) * np.uint8(255))
    return Image.composite(blend, dimmed.convert("RGB"), mask)
