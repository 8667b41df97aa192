"""Pictures and maps to bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png(image: Image.Image, compress_level: int = 3) -> bytes:
    """An L or RGB picture as PNG: its pixels and nothing else (no EXIF, no colour profile, no text).

    `compress_level` is zlib's, 0 to 9.
    """
    bare = image.copy()
    bare.info = {}
    stream = BytesIO()
    bare.save(stream, "PNG", compress_level=compress_level)
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """An array as float32 in NumPy's .npy format, rows first."""
    stream = BytesIO()
    np.save(stream, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return stream.getvalue()
