"""JPEG photographs as clients send them: a real photograph in the sizes of cameras, with their grain."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageOps

from heatserve_tools.demo.photographs import photographs

#: Width and height by megapixels.
SIZES: Mapping[float, tuple[int, int]] = {
    0.1: (320, 240),
    0.8: (1024, 768),
    2.5: (1920, 1280),
    12.0: (4000, 3000),
}
#: The standard deviation of the grain, in steps of 256. An enlarged picture without it is smoother than any camera's.
GRAIN = 4.0
QUALITY = 90


def jpeg(width: int, height: int) -> bytes:
    """The photograph of a cup of coffee, cropped and enlarged to a size. The same bytes at every call."""
    with Image.open(io.BytesIO(photographs()["coffee"])) as opened:
        picture = ImageOps.fit(opened.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
    values = np.asarray(picture).astype(np.float32)
    # The grain of all colours is one: most of a camera's noise is in the brightness.
    values += GRAIN * np.random.default_rng(0).standard_normal((height, width, 1), np.float32)
    file = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def sizes() -> dict[float, bytes]:
    """A photograph of each size, by its megapixels."""
    return {megapixels: jpeg(*size) for megapixels, size in SIZES.items()}
