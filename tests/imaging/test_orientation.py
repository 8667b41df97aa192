"""The orientation that a file declares is the one that Pillow reads, however it is stored."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from devtools.fuzz import costly
from heatserve.imaging import decode

LIMIT = 1_000_000
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
HEAD = b"Exif\0\0"
NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 7: "B", 11: "f"}


def exif(order: str, *entries: tuple[int, int, bytes]) -> bytes:
    """EXIF data with orientations, each with its type, count and value; longer ones lie behind the directory."""
    room = 10 + 12 * len(entries) + 4
    directory, behind = b"", b""
    for kind, count, value in entries:
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", room + len(behind))
        directory += struct.pack(order + "HHI", 0x0112, kind, count) + place
        behind += value if len(value) > 4 else b""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(entries)) + directory + bytes(4) + behind


def stored(order: str, kind: int, *values: int) -> tuple[int, int, bytes]:
    return kind, len(values), struct.pack(f"{order}{len(values)}{NUMBERS[kind]}", *values)


def files(body: bytes) -> dict[str, bytes]:
    """A picture with this EXIF data, of each format that has it in a place of its own."""
    stream = io.BytesIO()
    NOISE.save(stream, "JPEG")
    jpeg = stream.getvalue()
    segment = b"\xff\xe1" + struct.pack(">H", len(HEAD + body) + 2) + HEAD + body
    stream = io.BytesIO()
    NOISE.save(stream, "WEBP", lossless=True, exif=HEAD + body)
    png = io.BytesIO()
    NOISE.save(png, "PNG")
    data = png.getvalue()
    return {
        "JPEG": jpeg[:2] + segment + jpeg[2:],
        "WEBP": stream.getvalue(),
        "PNG": data[:33] + costly.chunk(b"eXIf", body) + data[33:],
    }


def agrees(body: bytes, what: object) -> list[object]:
    """Checks each format of file against Pillow, and gives back what Pillow found."""
    found = []
    for form, data in files(body).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = Image.open(io.BytesIO(data)).getexif().get(0x0112)
            turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
        declared = value if isinstance(value, int) and 1 <= value <= 8 else 1
        ours = decode(data, LIMIT)
        assert ours.orientation == declared, (form, what, value)
        assert np.array_equal(np.asarray(ours.upright()), np.asarray(turned)), (form, what, value)
        found.append(value)
    return found


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4, 6, 7, 8, 9, 13, 16])
def test_an_orientation_of_any_type_is_what_pillow_says(order: str, kind: int) -> None:
    for orientation in range(10):
        found = agrees(exif(order, stored(order, kind, orientation)), orientation)
        if kind in (3, 4):
            assert found == [orientation] * 3


@pytest.mark.parametrize("order", ["<", ">"])
def test_of_several_orientations_that_one_counts_that_pillow_reads(order: str) -> None:
    six, eight = stored(order, 3, 6), stored(order, 4, 8)
    for entries in (
        [(3, 0, b""), six],
        [(99, 1, b"\1"), eight],
        [stored(order, 3, 6, 8)],
        [stored(order, 4, 6, 8)],
        [stored(order, 3, 6, 8, 3)],
        [(3, 9_999, b"\xff" * 4), six],
    ):
        agrees(exif(order, *entries), entries)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_head_of_exif_may_stand_twice(order: str) -> None:
    body = exif(order, stored(order, 4, 6))
    assert agrees(HEAD + body, "twice") == [6, 6, 6]
