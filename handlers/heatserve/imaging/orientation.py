"""EXIF orientation: the way in which a viewer turns the rows of a file.

An orientation is one of the numbers 1 to 8 of EXIF tag 0x0112. Number 1 leaves the picture as it is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]

_TAG = 0x0112
_HEADS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0")
_EXIF = b"Exif\0\0"
#: The whole numbers of an entry as `struct` reads them, by the type of the entry.
_NUMBERS: Mapping[int, str] = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q"}
#: The types of other values. Pillow takes none of them for an orientation, a single byte included.
_OTHERS = (1, 2, 5, 7, 10, 11, 12)
_MAX_ENTRIES = 100
#: The hexadecimal digits that are read: the first directory of EXIF data stands at its beginning.
_MAX_DIGITS = 1_000_000
_XMP = re.compile(rb'tiff:Orientation(="|>)([0-9])')

# By orientation: whether to transpose, then to mirror left and right, then to mirror top and bottom.
_STEPS: Mapping[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}

_TRANSPOSES: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image, exif: bytes = b"", xmp: bytes = b"") -> int:
    """The orientation 1 to 8 that a loaded picture declares, or 1 if it declares none or nonsense.

    exif, xmp: metadata that were taken out of the file before it was opened.
    """
    try:
        value = _declared(image, exif, xmp)
    except Exception:  # the metadata may hold anything
        return 1
    return value if value in _STEPS else 1


def _declared(image: Image.Image, exif: bytes, xmp: bytes) -> int:
    if image.format == "TIFF":
        value = image.getexif().get(_TAG, 1)
        return value if isinstance(value, int) else 1
    exif = exif or image.info.get("exif") or _of_text(image.info.get("Raw profile type exif", ""))
    value = _of_exif(exif.removeprefix(_EXIF).removeprefix(_EXIF))
    if value is not None:
        return value
    text = xmp or image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    found = _XMP.search(text.encode() if isinstance(text, str) else text)
    return int(found[2]) if found else 1


def _of_text(profile: str) -> bytes:
    """The EXIF data that a PNG holds as text: three lines of other facts, then lines of hexadecimal digits."""
    lines = profile.split("\n", 3)
    digits = lines[3][:_MAX_DIGITS].replace("\n", "") if len(lines) > 3 else ""
    return bytes.fromhex(digits[: len(digits) // 2 * 2])


def _of_exif(exif: bytes) -> int | None:
    """The orientation in the first directory of EXIF data. It is 0 for a value that is no number, None for no value.

    Pillow's own parser reads every tag, and tags may refer to the same megabytes any number of times.
    """
    if len(exif) < 10 or not exif.startswith(_HEADS):
        return None
    order = "<" if exif.startswith(b"II") else ">"
    (offset,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, offset)
    fields = {"tag": "u2", "kind": "u2", "count": "u4", "value": "u4"}
    stored = np.dtype([(name, order + kind) for name, kind in fields.items()])
    count = min(count, (len(exif) - offset - 2) // stored.itemsize)
    entries = np.frombuffer(exif, stored, count, offset + 2)
    for index in np.flatnonzero(entries["tag"] == _TAG)[:_MAX_ENTRIES].tolist():
        kind, values, place = (int(entries[name][index]) for name in ("kind", "count", "value"))
        if kind in _NUMBERS and values:
            size = values * struct.calcsize("=" + _NUMBERS[kind])
            start = place if size > 4 else offset + 2 + index * stored.itemsize + 8
            if start + size <= len(exif):
                value: int = struct.unpack_from(order + _NUMBERS[kind], exif, start)[0]
                return value
        elif kind in _OTHERS and values:
            return 0
    return None


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """The width and height after turning upright. A second call gives the stored size again."""
    return (height, width) if _STEPS[orientation][0] else (width, height)


def upright_image(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned upright, or `image` itself if there is nothing to turn."""
    return image.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else image


def upright_array(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of an array [height, width], turned in the way in which `upright_image` turns the picture."""
    transpose, mirror_x, mirror_y = _STEPS[orientation]
    turned = array.T if transpose else array
    return turned[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]


def upright_box(box: Box, width: float, height: float, orientation: int) -> Box:
    """The box (x0, y0, x1, y1) of a stored picture [height, width] on the upright picture."""
    transpose, mirror_x, mirror_y = _STEPS[orientation]
    x0, y0, x1, y1 = box
    if transpose:
        x0, y0, x1, y1 = y0, x0, y1, x1
        width, height = height, width
    if mirror_x:
        x0, x1 = width - x1, width - x0
    if mirror_y:
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1
