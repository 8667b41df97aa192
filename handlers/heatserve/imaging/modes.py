"""Pixel modes: palettes, alpha, inks, 16 bits and floats become 8-bit RGB, or RGBA for a network that sees alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_SIXTEEN_TO_EIGHT: NDArray[np.uint8] = np.rint(np.arange(65536) / 257).astype(np.uint8)
_COLOUR_KEYED = ("P", "L", "1")
#: The number of pixels that are converted at a time: their floats stay in the processor's cache.
_PART = 1 << 18


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture as 8-bit RGB.

    RGB is returned as it is. Transparent parts are composited on white. Integer greys deeper than
    8 bits are scaled so that 65535 becomes 255. Floats are taken to run from 0 to 1, or from 0 to 255.
    If values lie outside these ranges, the smallest becomes 0 and the largest 255.

    Raises ValueError if Pillow knows no conversion.
    """
    mode = image.mode
    if mode == "RGB":
        return image
    if mode in _ALPHA or (mode in _COLOUR_KEYED and "transparency" in image.info):
        return on_white(image)
    if mode.startswith("I;16"):
        return _by_parts(image, lambda part: Image.fromarray(_SIXTEEN_TO_EIGHT[np.asarray(part)]))
    if mode == "F" or mode.startswith("I"):
        black, white = _range(image)
        return _by_parts(image, lambda part: Image.fromarray(_eight_bit(np.asarray(part), black, white)))
    return image.convert("RGB")


def to_rgba(image: Image.Image) -> Image.Image:
    """A loaded picture as 8-bit RGBA, in the colours that it stores under its transparent parts.

    A picture without alpha is opaque. Its values become 8 bits as in `to_rgb`, which says the errors too.
    """
    if image.mode == "La":  # Pillow converts it to LA alone
        image = image.convert("LA")
    if image.mode in _ALPHA or "transparency" in image.info:
        return image.convert("RGBA")
    return to_rgb(image).convert("RGBA")


def _by_parts(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB picture whose parts are converted one by one, so that no intermediate copy holds all pixels."""
    rgb = Image.new("RGB", image.size)
    for box in _boxes(*image.size):
        rgb.paste(convert(image.crop(box)).convert("RGB"), box)
    return rgb


def _boxes(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """The boxes of at most `_PART` pixels that cover a picture: whole rows, or parts of a longer row."""
    across = min(width, _PART)
    down = max(1, _PART // width)
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, min(left + across, width), min(top + down, height)


def on_white(image: Image.Image) -> Image.Image:
    """A picture with transparent parts as RGB on white.

    Pasting gives the same bits as `Image.alpha_composite`, in one step.
    """
    rgb = Image.new("RGB", image.size, (255, 255, 255))
    if image.mode == "RGBA":
        rgb.paste(image, (0, 0), image)
        return rgb
    for box in _boxes(*image.size):
        part = image.crop(box)
        part = (part.convert("LA") if part.mode == "La" else part).convert("RGBA")
        rgb.paste(part, box, part)
    return rgb


def _range(image: Image.Image) -> tuple[float, float]:
    """The two values of an integer or float picture that become black and white."""
    extremes = [_extremes(np.asarray(image.crop(box))) for box in _boxes(*image.size)]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    for white in (1.0, 255.0) if image.mode == "F" else (65535.0,):
        if lowest >= 0 and highest <= white:
            return 0.0, white
    return lowest, highest


def _extremes(grey: NDArray[Any]) -> tuple[float, float]:
    finite = _finite(grey)
    return float(finite.min()), float(finite.max())


def _finite(grey: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isfinite(grey), grey, 0) if grey.dtype.kind == "f" else grey


def _eight_bit(grey: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """The uint8 levels of greys [H, W] of any integer or float type."""
    if grey.dtype.kind != "f" and (black, white) == (0.0, 65535.0):
        eight: NDArray[np.uint8] = _SIXTEEN_TO_EIGHT[grey]
        return eight
    scaled: NDArray[np.float32] = _finite(grey).astype(np.float32)
    scaled -= np.float32(black)
    scaled *= np.float32(255.0 / (white - black or 1.0))
    rounded: NDArray[np.uint8] = np.rint(scaled, out=scaled).clip(0, 255, out=scaled).astype(np.uint8)
    return rounded
