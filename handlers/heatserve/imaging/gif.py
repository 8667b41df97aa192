"""The structure of a GIF file is read from its blocks before the first frame."""

from __future__ import annotations

import re
import struct

from .errors import UnreadableImage
from .structure import Structure

#: Comments and metadata before the first frame are cut into blocks of up to 255 bytes.
MAX_BLOCKS = 10_000

_EXTENSION, _FRAME, _CONTROL = 0x21, 0x2C, 0xF9
#: The first byte of a block. Other bytes between blocks are passed over.
_BLOCK = re.compile(rb"[\x21\x2c\x3b]")


def structure_of(data: bytes) -> Structure:
    """The structure of a GIF.

    data: the screen, the last graphic control before the first frame, and everything from that frame on.

    Raises UnreadableImage if more blocks stand before the first frame than a picture needs.
    """
    if len(data) < 13:
        return Structure(data)
    screen = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    position, blocks = screen, 0
    control = b""
    while (found := _BLOCK.search(data, position)) and data[found.start()] == _EXTENSION:
        start = found.start()
        position = start + 2
        while position < len(data) and data[position] and blocks <= MAX_BLOCKS:
            position += 1 + data[position]
            blocks += 1
        position += 1
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise UnreadableImage("The GIF has more blocks than a picture needs.")
        if data[start + 1 : start + 2] == bytes([_CONTROL]):
            control = data[start:position]
    frame = found.start() if found else len(data)
    bare = data[:screen] + control + data[frame:]
    if frame + 9 > len(data) or data[frame] != _FRAME:
        return Structure(bare, parts=blocks)
    left, top, width, height = struct.unpack_from("<HHHH", data, frame + 1)
    across, down = struct.unpack_from("<HH", data, 6)
    return Structure(bare, size=(max(across, left + width), max(down, top + height)), parts=blocks)
