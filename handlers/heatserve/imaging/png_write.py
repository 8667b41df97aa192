"""The writer of PNG files (PNG Specification, third edition, W3C 2025).

General encoders try five filters on each row, which takes most of their time. Here the filter is fixed by the kind of
picture. A heatmap is smooth along its rows: the difference to the pixel on the left ("Sub") is nearly constant, and
zlib's fastest level finds it again. A photograph has no repetitions worth a search: the difference to the pixel above
("Up") is coded by runs and Huffman's code alone.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_SUB, _UP = 1, 2
_LEVEL = 1
_WINDOW, _MEMORY = 15, 9


def png_bytes(pixels: NDArray[np.uint8], text: Mapping[str, str]) -> bytes:
    """The PNG file of grey levels [height, width] or of RGB [height, width, 3].

    text: becomes one chunk `tEXt` for each name. Characters beyond Latin-1 become question marks.
    """
    height, width = pixels.shape[:2]
    grey = pixels.ndim == 2
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if grey else _RGB, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header)]
    for name, value in text.items():
        chunks.append(_chunk(b"tEXt", name.encode("latin-1", "replace") + b"\0" + value.encode("latin-1", "replace")))
    strategy = zlib.Z_DEFAULT_STRATEGY if grey else zlib.Z_RLE
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, strategy)
    rows = _from_the_left(pixels) if grey else _from_above(pixels.reshape(height, -1))
    chunks.append(_chunk(b"IDAT", packer.compress(rows.data) + packer.flush()))
    chunks.append(_chunk(b"IEND", b""))
    return _SIGNATURE + b"".join(chunks)


def _from_the_left(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each byte of grey rows less the byte on its left, behind the filter's number."""
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _SUB
    filtered[:, 1] = rows[:, 0]
    np.subtract(rows[:, 1:], rows[:, :-1], out=filtered[:, 2:])
    return filtered


def _from_above(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each byte of the rows less the byte above it, behind the filter's number."""
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
