"""The structure of a TIFF file is read from its first directory and its strips or tiles."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import UnreadableImage
from .structure import Structure

#: A TIFF may be cut into tiles of one pixel. Pillow makes a decoder for each tile that is not compressed.
MAX_TILES = 20_000
#: The most numbers in a tag, such as the places of compressed strips.
MAX_NUMBERS = 200_000
MAX_ENTRIES = 1_000
MAX_DIRECTORIES = 8

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT, _ORIENTATION = 322, 323, 274
#: Tags that point to further directories: EXIF, GPS, interoperability.
_POINTERS = (34665, 34853, 40965)
_CODINGS: Mapping[int, str] = {
    1: "raw", 2: "fax", 3: "fax", 4: "fax", 5: "lzw", 6: "jpeg", 7: "jpeg", 8: "deflate", 32946: "deflate",
    32773: "packbits", 34925: "lzma", 50000: "zstd", 50001: "webp",
}  # fmt: skip
#: The bytes of a value, by type. Strings of bytes are never taken apart into numbers.
_SIZES: Mapping[int, int] = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip
_STRINGS = (1, 2, 7)
_INTEGERS: Mapping[int, str] = {
    1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8",
}  # fmt: skip
#: The tags that the structure is read from. Each must be readable: Pillow ignores an entry that it cannot read.
_READ = (
    _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _TILE_WIDTH,
    _TILE_HEIGHT, _ORIENTATION,
)  # fmt: skip
_LARGEST = np.uint64(2**62)
_SCAN = b"\xff\xda"
_OLD_JPEG = 6


@dataclass(frozen=True)
class _Entry:
    kind: int
    count: int
    offset: int

    @property
    def bytes(self) -> int:
        return self.count * _SIZES.get(self.kind, 1)


class _Reader:
    """A reader of directories. It refuses those whose values cost more to read than a picture needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "<" if data.startswith(b"II") else ">"
        if data[2:4] == b"\0+":  # Pillow reads it as a TIFF of 32 bits, and libtiff as one of 64
            raise UnreadableImage("The TIFF is a big-endian BigTIFF, which is not supported: send it as PNG.")
        self._big = data[2:3] == b"+"
        self._left = MAX_DIRECTORIES

    def first(self) -> dict[int, _Entry]:
        """The first directory. The further directories that Pillow reads (EXIF, GPS) are checked too."""
        found = self._directory(self._number("Q", 8) if self._big else self._number("I", 4))
        if any(entry.offset + entry.bytes > len(self._data) for entry in found.values()):
            raise UnreadableImage("The TIFF has tags that lie beyond its end.")
        if any(found[tag].kind not in _INTEGERS or not found[tag].count for tag in _READ if tag in found):
            raise UnreadableImage("The TIFF has sizes or places that are no whole numbers.")
        return found

    def integers(self, entry: _Entry | None) -> NDArray[np.int64]:
        """The values of an entry. There are none if it is missing or holds no integers."""
        if entry is None or entry.kind not in _INTEGERS:
            return np.zeros(0, np.int64)
        stored = np.dtype(self._order + _INTEGERS[entry.kind])
        room = max(0, (len(self._data) - entry.offset) // stored.itemsize)
        values = np.frombuffer(self._data, stored, min(entry.count, room), min(entry.offset, len(self._data)))
        found: NDArray[np.int64] = np.minimum(values.astype(np.uint64), _LARGEST).astype(np.int64)
        return found

    def _directory(self, offset: int) -> dict[int, _Entry]:
        self._left -= 1
        if self._left < 0:
            raise UnreadableImage("The TIFF has more directories than a picture needs.")
        head, form = (8, "HHQ") if self._big else (2, "HHI")
        count = self._number("Q" if self._big else "H", offset)
        if count > MAX_ENTRIES:
            raise UnreadableImage("The TIFF has more tags than a picture needs.")
        inline = 8 if self._big else 4
        step = 4 + 2 * inline
        found: dict[int, _Entry] = {}
        for index in range(count):
            start = offset + head + index * step
            if start + step > len(self._data):
                break
            tag, kind, values = struct.unpack_from(self._order + form, self._data, start)
            entry = _Entry(kind, values, start + 4 + inline)
            if entry.bytes > inline:
                entry = _Entry(kind, values, self._number("Q" if self._big else "I", start + 4 + inline))
            if kind in _SIZES and kind not in _STRINGS and values > MAX_NUMBERS:
                raise UnreadableImage("The TIFF has more numbers in a tag than a picture needs.")
            if tag in found:  # decoders differ in which of the two they take
                raise UnreadableImage("The TIFF has a tag twice.")
            found[tag] = entry
        if sum(entry.bytes for entry in found.values()) > len(self._data):
            raise UnreadableImage("The TIFF has tags that are larger than the file.")
        for pointer in _POINTERS:
            for inner in self.integers(found.get(pointer))[:1]:
                self._directory(int(inner))
        return found

    def _number(self, form: str, offset: int) -> int:
        if offset + struct.calcsize(form) > len(self._data):
            return 0
        number: int = struct.unpack_from(self._order + form, self._data, offset)[0]
        return number


def structure_of(data: bytes) -> Structure:
    """The structure of a TIFF's first picture.

    Raises UnreadableImage if it has more tags, tiles or directories than a picture needs, if its strips
    share bytes, or if one of its tiles is far larger than the picture.
    """
    reader = _Reader(data)
    tags = reader.first()

    def number(tag: int, default: int) -> int:
        values = reader.integers(tags.get(tag))
        return int(values[0]) if values.size else default

    width, height = number(_WIDTH, 0), number(_HEIGHT, 0)
    coding = _CODINGS.get(number(_COMPRESSION, 1), "other")
    tiled = _TILES in tags
    if any((tag in tags) != tiled for tag in (_TILE_WIDTH, _TILE_HEIGHT)) or (tiled and _STRIPS in tags):
        raise UnreadableImage("The TIFF does not say whether it is cut into strips or tiles.")
    offsets = reader.integers(tags.get(_TILES if tiled else _STRIPS))
    lengths = reader.integers(tags.get(_TILE_BYTES if tiled else _STRIP_BYTES))
    pixels = width * height
    if tiled:
        across, down = max(1, number(_TILE_WIDTH, 1)), max(1, number(_TILE_HEIGHT, 1))
        pixels = -(-width // across) * across * (-(-height // down) * down)
        if pixels > 4 * width * height + 1_000_000:
            raise UnreadableImage("The TIFF has tiles that are far larger than its picture.")
    if coding == "raw" and offsets.size > MAX_TILES:
        raise UnreadableImage("The TIFF is cut into more tiles than a picture needs.")
    if coding != "raw" and int(np.minimum(lengths, 2**40).sum()) > len(data):
        raise UnreadableImage("The TIFF has strips that share bytes.")
    bits = reader.integers(tags.get(_BITS))
    samples = max(number(_SAMPLES, 1), bits.size)
    bytes_per_pixel = samples * int(bits.max(initial=1)) / 8
    anywhere = number(_COMPRESSION, 1) == _OLD_JPEG
    passes = _scans(data, offsets, lengths, anywhere) if coding == "jpeg" else bytes_per_pixel
    turned = number(_ORIENTATION, 1) != 1
    return Structure(data, coding, (width, height), pixels, passes, int(offsets.size), turned)


def _scans(data: bytes, offsets: NDArray[np.int64], lengths: NDArray[np.int64], anywhere: bool) -> float:
    """The passes over the picture of the scans of its strips. The strips are of one size, and share no bytes.

    anywhere: whether scans may lie outside the strips too.
    """
    if offsets.size == 0 or offsets.size != lengths.size:
        raise UnreadableImage("The TIFF does not say where its strips lie.")
    order = np.argsort(offsets)
    if (offsets[order][:-1] + lengths[order][:-1] > offsets[order][1:]).any():
        raise UnreadableImage("The TIFF has strips that share bytes.")
    if anywhere or not lengths.all():  # libtiff reads a strip of no bytes to the end of the file
        scans = data.count(_SCAN)
    else:
        scans = sum(
            data.count(_SCAN, start, start + length) for start, length in zip(offsets.tolist(), lengths.tolist())
        )
    return 3.0 * max(1.0, scans / offsets.size)
