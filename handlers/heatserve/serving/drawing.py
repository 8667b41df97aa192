"""From attributions to pictures: a map on the model's view, then on the photograph as heatmap, overlay and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine import METHODS, Attribution
from ..imaging import Geometry, grey, largest_box, overlay, scale_of, signed_grey


@dataclass(frozen=True)
class View:
    """A map on the model's view.

    values: float32 (H, W).
    scale: the value that pictures show at grey 255; 0 for a map without positive part, or without any value if signed.
    signed: whether negative values are shown too, in a second colour.
    """

    attribution: Attribution
    values: NDArray[np.float32]
    scale: float
    signed: bool = False

    @property
    def empty(self) -> bool:
        """Whether the map has no part that its pictures would show."""
        return self.scale <= 0


@dataclass(frozen=True)
class Drawing:
    """A view on the upright photograph.

    heat: grey levels uint8 (height, width) of the photograph; 128 is zero for a signed map.
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
        """The heat in colours over the photograph. A signed map is red and blue, whatever the colour map is."""
        return overlay(self.photograph, self.heat, self.seen, colormap, opacity, self.view.signed)


def view(geometry: Geometry, attribution: Attribution) -> View:
    """An attribution's map on the host, at the size of the model's view."""
    method = METHODS[attribution.query.method]
    found = attribution.map.cpu().numpy()
    if attribution.query.resolution > 1:
        found = geometry.of_blocks(found, attribution.query.resolution)
    values = geometry.on_view(found)
    shown = values[geometry.on_photograph()]
    scale = scale_of(np.abs(shown) if method.signed else shown, method.display)
    return View(attribution, values, scale, method.signed)


def draw(photograph: Image.Image, geometry: Geometry, of: View, side: int) -> Drawing:
    """A view on the upright photograph, whose longer side becomes at most `side` pixels."""
    if max(photograph.size) > side:
        width, height = (max(1, round(length * side / max(photograph.size))) for length in photograph.size)
        photograph = photograph.resize((width, height), Image.Resampling.BICUBIC)
    projected, seen = geometry.project(of.values, *photograph.size)
    levels = signed_grey if of.signed else grey
    return Drawing(of, photograph, levels(projected, of.scale), seen)


def boxes(geometry: Geometry, of: View, threshold: float) -> list[dict[str, Any]]:
    """The box around the largest region that reaches `threshold` of the maximum, in the photograph's own pixels.

    The list is empty for a map without positive part. A letterbox's padding is no region.
    """
    part = geometry.on_photograph()
    shown = np.zeros_like(of.values)
    shown[part] = of.values[part]
    found = largest_box(shown, threshold)
    if found is None:
        return []
    x0, y0, x1, y1 = geometry.box(*found[:4])
    return [{"x0": x0, "y0": y0, "x1": x1, "y1": y1, "score": found[4]}]
