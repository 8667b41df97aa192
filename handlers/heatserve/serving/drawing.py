"""From attributions to pictures: a map on the model's view, then on the photograph as heatmap, overlay and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine import METHODS, Attribution
from ..imaging import Geometry, grey, largest_box, overlay, scale_of


@dataclass(frozen=True)
class View:
    """A map on the model's view.

    values: float32 (H, W).
    scale: the value that pictures show at grey 255; 0 for a map without positive part.
    """

    attribution: Attribution
    values: NDArray[np.float32]
    scale: float

    @property
    def empty(self) -> bool:
        """Whether the map has no positive part, so that its pictures show nothing."""
        return self.scale <= 0


@dataclass(frozen=True)
class Drawing:
    """A view on the upright photograph.

    heat: grey levels uint8 (height, width) of the photograph.
    seen: bool (height, width), the part of the photograph that the model's crop showed.
    """

    view: View
    photograph: Image.Image
    heat: NDArray[np.uint8]
    seen: NDArray[np.bool_]

    def heatmap(self) -> Image.Image:
        """The heat as an 8-bit grey picture."""
        return Image.fromarray(self.heat)

    def overlay(self, colormap: str, opacity: float) -> Image.Image:
        """The heat in colours over the photograph."""
        return overlay(self.photograph, self.heat, self.seen, colormap, opacity)


def view(geometry: Geometry, attribution: Attribution) -> View:
    """An attribution's map on the host, at the size of the model's view."""
    values = geometry.on_view(attribution.map.cpu().numpy())
    return View(attribution, values, scale_of(values, METHODS[attribution.query.method].display))


def draw(photograph: Image.Image, geometry: Geometry, of: View, side: int) -> Drawing:
    """A view on the upright photograph, whose longer side becomes at most `side` pixels."""
    if max(photograph.size) > side:
        width, height = (max(1, round(length * side / max(photograph.size))) for length in photograph.size)
        photograph = photograph.resize((width, height), Image.Resampling.BICUBIC)
    projected, seen = geometry.project(of.values, *photograph.size)
    return Drawing(of, photograph, grey(projected, of.scale), seen)


def boxes(geometry: Geometry, of: View, threshold: float) -> list[dict[str, Any]]:
    """The box around the largest region that reaches `threshold` of the maximum, in the photograph's own pixels.

    The list is empty for a map without positive part.
    """
    found = largest_box(of.values, threshold)
    if found is None:
        return []
    x0, y0, x1, y1 = geometry.box(*found[:4])
    return [{"x0": x0, "y0": y0, "x1": x1, "y1": y1, "score": found[4]}]
