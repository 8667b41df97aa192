"""The structure of a PNG file is read from its chunks."""

from __future__ import annotations

import struct

from .errors import UnreadableImage
from .structure import Structure

#: Encoders write chunks of 8 kB and more. Each costs the decoder some lines of Python.
MAX_CHUNKS = 10_000

_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
#: The texts that may declare an orientation.
_KEYWORDS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def structure_of(data: bytes) -> Structure:
    """The structure of a PNG.

    data: the chunks of the first picture, and those that may declare its orientation. Colour profiles, other texts and
    the other frames of an animation are left out.

    Raises UnreadableImage if there are more chunks than a picture needs, or if the header is not the first.
    """
    kept: dict[object, tuple[int, int]] = {}
    chunks = 0
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise UnreadableImage("The PNG has more chunks than a picture needs.")
        if (kind == b"IHDR") != (chunks == 1):
            raise UnreadableImage("The PNG does not begin with its one header.")
        end = position + 12 + length
        if not kind.isalpha():
            kept[position] = (position, end)
            break
        if kind in _NEEDED:
            kept[position] = (position, end)
        elif (name := _declaration(data, position + 8, kind)) is not None:
            kept.pop(name, None)
            kept[name] = (position, end)
        position = end
        if kind == b"IEND":
            break
    bare = b"".join([data[:8], *(data[start:end] for start, end in sorted(kept.values()))])
    if len(data) < 29:
        return Structure(bare, parts=chunks)
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bytes_per_pixel = depth * _CHANNELS.get(colour, 4) / 8
    return Structure(bare, "interlaced" if interlaced else "plain", (width, height), 0, bytes_per_pixel, chunks)


def _declaration(data: bytes, start: int, kind: bytes) -> bytes | None:
    """The name of a chunk that may declare an orientation, else None. The last chunk of a name counts."""
    if kind == b"eXIf":
        return kind
    if kind in _TEXT:
        return next((keyword for keyword in _KEYWORDS if data.startswith(keyword, start)), None)
    return None
