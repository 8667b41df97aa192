"""From attributions to pictures: a map on the model's view, then on the photograph as heatmap, overlay and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine import METHODS, Attribution
from ..imaging import ZERO, Geometry, Photograph, grey, largest_box, overlay, scale_of, shown_size, signed_grey


@dataclass(frozen=True)
class View:
    """A map on the model's view.

    source: the attribution's map on the host, in its own resolution.
    values: float32 (H, W).
    scale: the value that pictures show at grey 255; 0 for a map without positive part, or without any value if signed.
    signed: whether negative values are shown too, in a second colour.
    """

    attribution: Attribution
    source: NDArray[Any]
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

    photograph: RGB; None where only its size is known.
    heat: grey levels uint8 (height, width) of the photograph; 128 is zero for a signed map.
    seen: the rows and columns of the photograph that the model's crop showed.
    """

    view: View
    photograph: Image.Image | None
    heat: NDArray[np.uint8]
    seen: tuple[slice, slice]

    def overlay(self, colormap: str, opacity: float) -> Image.Image:
        """The heat in colours over the photograph. A signed map is red and blue, whatever the colour map is.

        Raises ValueError where the photograph is not known.
        """
        if self.photograph is None:
            raise ValueError("an overlay needs the photograph")
        return overlay(self.photograph, self.heat, self.seen, colormap, opacity, self.view.signed)


def view(geometry: Geometry, attribution: Attribution) -> View:
    """An attribution's map on the host, at the size of the model's view."""
    method = METHODS[attribution.query.method]
    source = attribution.map.cpu().numpy()
    if attribution.query.resolution > 1:
        source = geometry.of_blocks(source, attribution.query.resolution)
    values = geometry.on_view(source)
    shown = values[geometry.on_photograph()]
    scale = scale_of(np.abs(shown) if method.signed else shown, method.display)
    return View(attribution, source, values, scale, method.signed)


def draw(photograph: Photograph, geometry: Geometry, of: View, side: int) -> Drawing:
    """A view on the upright photograph, whose longer side becomes at most `side` pixels."""
    width, height = size = shown_size(*photograph.size, side)
    image = photograph.image
    if image is not None and image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    levels, zero = (signed_grey, ZERO) if of.signed else (grey, 0)
    # A layer's map has few values: from these it takes less time than from those on the view.
    part, seen = geometry.on_picture(of.source, width, height)
    heat = np.full((height, width), zero, np.uint8)
    heat[seen] = levels(part, of.scale)
    return Drawing(of, image, heat, seen)


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
