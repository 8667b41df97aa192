"""Encoders: pictures and maps become bytes."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin


def png_file(image: Image.Image, text: Mapping[str, str] | None = None, compress_level: int = 1) -> bytes:
    """The PNG file of an L or RGB picture: its pixels and these text chunks, no EXIF and no colour profile.

    compress_level: zlib's, 0 to 9. Level 1 gives the smallest product of bytes and seconds.
    """
    chunks = PngImagePlugin.PngInfo()
    for name, value in (text or {}).items():
        chunks.add_text(name, value)
    return _saved(image, "PNG", compress_level=compress_level, pnginfo=chunks)


def webp_file(image: Image.Image) -> bytes:
    """The lossy WebP file of an RGB picture: its pixels and nothing else."""
    return _saved(image, "WEBP", quality=90)


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
