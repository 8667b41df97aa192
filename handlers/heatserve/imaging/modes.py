"""Pixel modes: whatever a file stores (palettes, alpha, inks, 16 bits, floats) as 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_SIXTEEN_TO_EIGHT: NDArray[np.uint8] = np.rint(np.arange(65536) / 257).astype(np.uint8)
_COLOUR_KEYED = ("P", "L", "1")


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture as 8-bit RGB.

    RGB is passed through untouched. Transparent parts are composited on white. Integer greys deeper than
    8 bits are scaled so that 65535 becomes 255; floats are taken to run from 0 to 1, or from 0 to 255.
    Values outside of these ranges are stretched, the smallest to 0 and the largest to 255.

    Raises ValueError where PIL knows no conversion.
    """
    mode = image.mode
    if mode == "RGB":
        return image
    if mode in _ALPHA or (mode in _COLOUR_KEYED and "transparency" in image.info):
        return _on_white(image)
    if mode == "F" or mode.startswith("I"):
        return Image.fromarray(_eight_bit(np.asarray(image))).convert("RGB")
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _eight_bit(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W] of any integer or float type to uint8."""
    if grey.dtype.kind == "f":
        finite = np.where(np.isfinite(grey), grey, 0)
        lowest, highest = float(finite.min()), float(finite.max())
        if lowest >= 0 and highest <= 1:
            return _round(finite, 0.0, 1.0)
        if lowest >= 0 and highest <= 255:
            return _round(finite, 0.0, 255.0)
        return _round(finite, lowest, highest)
    lowest, highest = float(grey.min()), float(grey.max())
    if lowest >= 0 and highest <= 65535:
        eight: NDArray[np.uint8] = _SIXTEEN_TO_EIGHT[grey]
        return eight
    return _round(grey, lowest, highest)


def _round(grey: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    span = white - black or 1.0
    scaled: NDArray[np.float32] = grey.astype(np.float32)
    scaled -= np.float32(black)
    scaled *= np.float32(255.0 / span)
    eight: NDArray[np.uint8] = np.rint(scaled, out=scaled).clip(0, 255).astype(np.uint8)
    return eight
