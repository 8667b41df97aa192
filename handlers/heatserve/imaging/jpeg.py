"""The structure of a JPEG file is read from its segments, its frame and its scans."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .errors import UnreadableImage
from .structure import Structure

#: Progressive encoders write about ten scans. A long profile or panorama has some dozens of segments.
MAX_SCANS = 100
MAX_SEGMENTS = 1_000

#: A marker that is followed by a length, or the end. The search passes over fill (FF FF), escapes (FF 00) and markers
#: without a length, restarts among them. It reads a byte once or twice, in C.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_END = 0xD9
_SCAN = 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_CODINGS = {0xC2: "progressive", 0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic"}
#: Tables, frames, and the two application segments that declare the storage of colours.
_NEEDED = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE}
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class _Frame:
    """The facts in a frame's header.

    pixels: with the padding of blocks.
    planes: the share of the picture's pixels, by component.
    """

    coding: str = "baseline"
    size: tuple[int, int] | None = None
    pixels: int = 0
    planes: dict[int, float] = field(default_factory=dict)

    @staticmethod
    def of(marker: int, body: bytes) -> _Frame:
        if len(body) < 6:
            return _Frame()
        height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        factors = [(c, max(1, f >> 4), max(1, f & 15)) for c, f in zip(body[6::3], body[7::3])]
        across = max((h for _, h, _ in factors), default=1)
        down = max((v for _, _, v in factors), default=1)
        planes: dict[int, float] = {}
        for component, h, v in factors:  # a component that is named twice counts as the larger plane
            planes[component] = max(planes.get(component, 0.0), h * v / (across * down))
        pixels = _multiple(width, 8 * across) * _multiple(height, 8 * down)
        return _Frame(_CODINGS.get(marker, "baseline"), (width, height), pixels, planes)

    def scanned(self, body: bytes) -> float:
        """The passes of a scan with this header, in whole pictures."""
        count = body[0] if body else 0
        return sum(self.planes.get(component, 1.0) for component in body[1 : 1 + 2 * count : 2])


def structure_of(data: bytes) -> Structure:
    """The structure of a JPEG.

    data: the segments that pixels are decoded from. All others are left out.

    Raises UnreadableImage if there are more scans or segments than any camera or encoder writes: each scan
    passes over the whole picture, however empty it is.
    """
    kept, exif, xmp = [data[:2]], [], b""
    frame = _Frame()
    scans = segments = 0
    passes = 0.0
    position = 2
    while found := _MARKER.search(data, position):
        start = found.start()
        marker = data[start + 1]
        if marker == _END:
            break
        position = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        segments += 1
        scans += marker == _SCAN
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise UnreadableImage("The JPEG has more scans or segments than a picture needs.")
        body = data[start + 4 : position]
        if marker == _SCAN:
            passes += frame.scanned(body)
            if scans == 1:
                kept.append(data[start:])
        elif scans == 0:
            if marker in _FRAMES and not frame.planes:
                frame = _Frame.of(marker, body)
            if marker in _NEEDED:
                kept.append(data[start:position])
            elif marker == 0xE1 and body.startswith(_EXIF):
                exif.append(body[len(_EXIF) :])
            elif marker == 0xE1 and body.startswith(_XMP):
                xmp = body[len(_XMP) :]
    return Structure(
        b"".join(kept), frame.coding, frame.size, frame.pixels, passes, segments, exif=b"".join(exif), xmp=xmp
    )


def _multiple(length: int, of: int) -> int:
    return -(-length // of) * of
