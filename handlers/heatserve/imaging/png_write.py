"""The writer of PNG files (PNG Specification, third edition, W3C 2025).

General encoders try five filters on each row, which takes most of their time. Here the filter is fixed by the kind of
picture. A heatmap is smooth along its rows: the difference to the pixel on the left ("Sub") is nearly constant, and
zlib's fastest level finds it again. A photograph has no repetitions worth a search: the difference to the pixel above
("Up") is coded by runs and Huffman's code alone. Its two halves are packed at one time where there are two threads.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_SUB, _UP = 1, 2
_LEVEL = 1
_WINDOW, _MEMORY = 15, 9
#: The header of a zlib stream with this window and the fastest level (RFC 1950).
_STREAM = b"\x78\x01"
#: Bytes of which each half is worth a thread: to start one takes 0.1 ms, to pack these some 4 ms.
_WORTH = 500_000


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
    rows = _from_the_left(pixels) if grey else _from_above(pixels.reshape(height, -1))
    chunks.append(_chunk(b"IDAT", _packed(rows, strategy)))
    chunks.append(_chunk(b"IEND", b""))
    return _SIGNATURE + b"".join(chunks)


def _packed(rows: NDArray[np.uint8], strategy: int) -> bytes:
    """The zlib stream of filtered rows.

    Both halves are packed at one time where this thread may use several, as PyTorch counts them. The threads that draw
    answers beside the network may not.
    """
    middle = len(rows) // 2
    if rows.nbytes >= 2 * _WORTH and torch.get_num_threads() > 1:
        try:
            with ThreadPoolExecutor(1) as other:
                upper = other.submit(_deflated, rows[:middle], strategy, zlib.Z_FULL_FLUSH)
                lower = _deflated(rows[middle:], strategy, zlib.Z_FINISH)
                return _STREAM + upper.result() + lower + struct.pack(">I", zlib.adler32(rows.data))
        except RuntimeError:  # the system allows no further thread, or the process ends
            pass
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, strategy)
    return packer.compress(rows.data) + packer.flush()


def _deflated(rows: NDArray[np.uint8], strategy: int, ending: int) -> bytes:
    """Rows without the header and the sum of a stream. Behind a full flush the next part may follow."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -_WINDOW, _MEMORY, strategy)
    return packer.compress(rows.data) + packer.flush(ending)


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
