"""Encoders: pictures and maps become bytes."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .png_write import png_bytes

#: libwebp's least effort. Its files are some 5 % larger than those of its default, in a third of the time.
_WEBP_METHOD = 0
#: It takes three quarters of quality 90's time and bytes. The brightness keeps some 40 dB of signal to noise.
_WEBP_QUALITY = 85


def png_file(image: Image.Image | NDArray[np.uint8], text: Mapping[str, str] | None = None) -> bytes:
    """The PNG file of an L or RGB picture: its pixels and these Latin-1 text chunks, no EXIF and no colour profile.

    image: or its pixels, [height, width] or [height, width, 3], from which no picture is made.

    Raises ValueError for a picture of another mode.
    """
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"The picture's mode is {image.mode}; allowed: L, RGB.")
        image = np.asarray(image)
    return png_bytes(image, text or {})


def webp_file(image: Image.Image) -> bytes:
    """The lossy WebP file of an RGB picture: its pixels and nothing else."""
    return _saved(image, "WEBP", quality=_WEBP_QUALITY, method=_WEBP_METHOD)


def jpeg_file(image: Image.Image) -> bytes:
    """The JPEG file of an L or RGB picture: its pixels and nothing else."""
    return _saved(image, "JPEG", quality=90)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    bare = image.copy()
    bare.info = {}
    stream = BytesIO()
    bare.save(stream, form, **options)
    return stream.getvalue()


def npy_file(array: NDArray[Any]) -> bytes:
    """The .npy file of an array as float32, rows first."""
    stream = BytesIO()
    np.save(stream, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return stream.getvalue()
