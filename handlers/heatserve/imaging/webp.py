"""The structure of a WebP file is read from its canvas and the coding of its first frame."""

from __future__ import annotations

import struct

from .errors import UnreadableImage
from .structure import Structure

#: An animation has one chunk for each frame.
MAX_CHUNKS = 10_000
_FRAME_HEADER = 16
#: The coding by the kind of the first chunk of pixels, or of an alpha plane if there is one.
_CODINGS = {b"VP8 ": "lossy", b"VP8L": "lossless", b"ALPH": "lossy with alpha"}


def structure_of(data: bytes) -> Structure:
    """The structure of a WebP. The decoder fills the canvas, with the first frame if the file is an animation.

    Raises UnreadableImage if there are more chunks than a picture needs.
    """
    size: tuple[int, int] | None = None
    coding = ""
    chunks = 0
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise UnreadableImage("The WebP has more chunks than a picture needs.")
        size = size or _size(kind, data[position + 8 : position + 18])
        if kind in _CODINGS and (not coding or kind == b"ALPH"):
            coding = _CODINGS[kind]
        # A frame of an animation has chunks of its own.
        inside = kind == b"ANMF" and not coding
        position += 8 + (_FRAME_HEADER if inside else length + length % 2)
    return Structure(data, coding or "lossless", size, parts=chunks)


def _size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    """The width and height of the canvas that a chunk declares, or None if it declares none."""
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None
