"""What a JPEG file is made of, counted before a decoder sees it: some files cost minutes and hold next to nothing."""

from __future__ import annotations

from .errors import UnreadableImage

#: Progressive encoders write about ten scans, and a long profile or panorama some dozens of segments.
MAX_SCANS = 100
MAX_SEGMENTS = 1_000

_SCAN = 0xDA
_END = 0xD9
_WITHOUT_LENGTH = {0x00, 0x01, 0xFF, *range(0xD0, 0xD9)}


def refuse_endless(data: bytes) -> None:
    """Raises UnreadableImage for a JPEG of more scans or segments than any camera or encoder writes.

    Each scan of a progressive JPEG passes over the whole picture, however empty it is.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    scans = segments = 0
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return
        marker = data[position + 1]
        if marker in _WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _END:
            return
        segments += 1
        scans += marker == _SCAN
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise UnreadableImage("The JPEG has more scans or segments than a picture needs.")
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
