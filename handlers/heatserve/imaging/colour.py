"""Colour maps turn 256 grey levels into RGB. A map is a few anchors with straight lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Line = Sequence[tuple[float, float]]  # (position, value), both 0..1


def colour(heat: NDArray[np.uint8], colormap: str) -> NDArray[np.uint8]:
    """The colours uint8 [..., 3] of grey levels uint8 [...].

    Raises ValueError for a colour map that is not one of `COLORMAPS`.
    """
    return table(colormap)[heat]


def table(colormap: str) -> NDArray[np.uint8]:
    """The colours uint8 [256, 3] of the grey levels 0 to 255.

    Raises ValueError for a colour map that is not one of `COLORMAPS`.
    """
    if colormap not in COLORMAPS:
        raise ValueError(f"The colour map is {colormap!r}; allowed: {', '.join(COLORMAPS)}.")
    return COLORMAPS[colormap]


def _channels(red: _Line, green: _Line, blue: _Line) -> NDArray[np.uint8]:
    """The colours of a map whose channels have anchors of their own."""
    levels = np.linspace(0.0, 1.0, 256)
    columns = []
    for line in (red, green, blue):
        positions, values = np.array(line).T
        columns.append(np.interp(levels, positions, values))
    return _frozen(np.stack(columns, axis=1) * 255.0)


def _anchors(*points: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """The colours of a map whose channels share anchors (grey level, red, green, blue)."""
    level, *channels = np.array(points, np.float64).T
    return _frozen(np.stack([np.interp(np.arange(256), level, values) for values in channels], axis=1))


def _frozen(values: NDArray[Any]) -> NDArray[np.uint8]:
    colours: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
    colours.setflags(write=False)
    return colours


COLORMAPS: Mapping[str, NDArray[np.uint8]] = {
    "jet": _channels(
        red=((0, 0), (0.35, 0), (0.66, 1), (0.89, 1), (1, 0.5)),
        green=((0, 0), (0.125, 0), (0.375, 1), (0.64, 1), (0.91, 0), (1, 0)),
        blue=((0, 0.5), (0.11, 1), (0.34, 1), (0.65, 0), (1, 0)),
    ),
    "hot": _channels(
        red=((0, 0.0416), (0.365, 1), (1, 1)),
        green=((0, 0), (0.365, 0), (0.746, 1), (1, 1)),
        blue=((0, 0), (0.746, 0), (1, 1)),
    ),
    "viridis": _anchors(
        (0, 68, 1, 84),
        (29, 72, 41, 121),
        (66, 58, 84, 140),
        (139, 30, 155, 138),
        (162, 42, 176, 127),
        (191, 92, 200, 99),
        (242, 221, 227, 24),
        (255, 253, 231, 37),
    ),
    "inferno": _anchors(
        (0, 0, 0, 4),
        (21, 17, 10, 48),
        (45, 56, 9, 98),
        (70, 97, 19, 110),
        (110, 160, 42, 99),
        (153, 221, 81, 58),
        (190, 249, 139, 11),
        (203, 252, 163, 9),
        (224, 249, 203, 53),
        (241, 241, 236, 109),
        (255, 252, 255, 164),
    ),
    "grey": _anchors((0, 0, 0, 0), (255, 255, 255, 255)),
}

#: The colours of signed maps: blue below zero, red above it. None is pale near zero: over a photograph the opacity
#: shows the strength, and white would be a veil.
DIVERGING: NDArray[np.uint8] = _anchors((0, 5, 48, 200), (127, 60, 130, 255), (128, 255, 110, 90), (255, 190, 0, 20))
