"""Dials, which are named numbers that decide how a picture is made, and the pictures themselves."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile

#: The most bytes and pixels that the server accepts by default.
MAX_BYTES = 20_000_000
MIN_PIXELS, MAX_PIXELS = 1_000, 50_000_000


@dataclass
class Dials:
    """Named numbers from 0 to 1. One that is missing is drawn when it is needed, and kept."""

    set: dict[str, float]
    chosen: random.Random

    def share(self, name: str) -> float:
        return self.set.setdefault(name, self.chosen.random())

    def number(self, name: str, low: float, high: float) -> int:
        """A whole number from low to high; every order of magnitude is equally likely."""
        return round(low * (high / low) ** self.share(name))

    def pick(self, name: str, *options: object) -> object:
        return options[min(int(self.share(name) * len(options)), len(options) - 1)]

    def size(self, longest: int = 10**9) -> tuple[int, int]:
        """Width and height of any shape, with at most the allowed number of pixels."""
        pixels = self.number("pixels", MIN_PIXELS, MAX_PIXELS)
        shape = float(self.pick("shape", 1.0, 1.0, 1.5, 100.0, 0.01, 1e9, 1e-9))  # type: ignore[arg-type]
        width = min(max(1, round((pixels * shape) ** 0.5)), pixels, longest)
        return width, min(max(1, pixels // width), longest)


def picture(dials: Dials, mode: str, size: tuple[int, int]) -> Image.Image:
    """A picture of one colour, of a smooth gradient or of noise."""
    width, height = size
    content = dials.pick("content", "flat", "smooth", "noise")
    rng = np.random.default_rng(dials.number("grain", 1, 1000))
    if mode in ("F", "I", "I;16"):
        kinds = {"F": np.float32, "I": np.int32, "I;16": np.uint16}
        value = float(dials.pick("value", 0.0, 1e-40, 0.5, 200.0, 60000.0, -1e30 if mode == "F" else 7.0))  # type: ignore[arg-type]
        flat = np.full((height, width), value).astype(kinds[mode])
        if content != "flat":
            flat.reshape(-1)[:: dials.number("step", 1, 10_000)] += 1
        return Image.fromarray(flat)
    if content == "flat":
        return Image.new(mode, size, 77 if mode in ("L", "P", "1") else 0)
    tile = Image.fromarray(rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    if content == "noise":
        tile = Image.fromarray(rng.integers(0, 256, (256, 256, 4), dtype=np.uint8))
    tile = tile.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else tile.convert(mode)
    whole = Image.new(mode, size)
    if mode == "P":
        whole.putpalette(tile.getpalette() or [])
    for top in range(0, height, 256):
        for left in range(0, width, 256):
            whole.paste(tile, (left, top))
    return whole


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """The bytes of a file."""
    ImageFile.MAXBLOCK = 1 << 25  # or pictures of noise could not be written as JPEG
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
