"""The answer for one picture: a prediction with one map, which can be laid over the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine import Attribution
from ..imaging import Geometry, Photograph
from ..serving.drawing import View, boxes, draw


@dataclass(frozen=True, eq=False)
class Answer:
    """A prediction with one map.

    predictions: (label, probability) of the likeliest classes, the likeliest first; values for activation "none".
    label, probability: of the explained class.
    attribution: the engine's own answer, with its standard error where samples were taken.
    """

    predictions: Sequence[tuple[str, float]]
    label: str
    probability: float
    attribution: Attribution
    _view: View
    _geometry: Geometry
    _photograph: Image.Image

    @property
    def map(self) -> NDArray[np.float32]:
        """The map on the model's view, float32 (H, W)."""
        return self._view.values

    def overlay(
        self, image: Image.Image | None = None, *, colormap: str = "jet", opacity: float = 0.6, side: int = 1024
    ) -> Image.Image:
        """The map in colours over the photograph, RGB.

        image: another upright picture of the same photograph, in place of the one that was explained.
        side: the longest side of the result, in pixels.

        Raises ValueError for a picture of other proportions: the map would lie in a wrong place.
        """
        if image is not None:
            (width, height), (own_width, own_height) = image.size, self._photograph.size
            if abs(width * own_height - height * own_width) > max(own_width, own_height, width, height):
                raise ValueError(
                    f"the picture is {width} x {height}, and the explained one {own_width} x {own_height}: give the "
                    "whole photograph, upright, in another size only"
                )
        shown = image or self._photograph
        return draw(Photograph(shown.size, shown), self._geometry, self._view, side).overlay(colormap, opacity)

    def boxes(self, threshold: float = 0.2) -> list[dict[str, Any]]:
        """The box around the largest region that reaches `threshold` of the maximum, in the photograph's pixels."""
        return boxes(self._geometry, self._view, threshold)

    def _repr_png_(self) -> bytes:
        """The overlay, for a notebook that shows this answer."""
        image: Any = self.overlay(side=512)
        return bytes(image._repr_png_())
