"""What a picture may cost is decided from its header: refused, accepted, and never decoded to find out."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devtools.fuzz import costly
from devtools.fuzz.dials import Dials
from heatserve.imaging import (
    FORMATS,
    MAX_DECODE_MS,
    ImageTooLarge,
    Preprocess,
    UnreadableImage,
    decode,
    inspect,
    refuse_dear,
    shown_ms,
)

LIMIT = 50_000_000
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, LIMIT).image)


def promised(data: bytes, explained: bool = True) -> float:
    """Nominal milliseconds for all that is done to a picture."""
    header = inspect(data, LIMIT)
    size = header.width, header.height
    return header.decode_ms + Preprocess().cost_ms(*size) + (shown_ms(*size, 1024) if explained else 0)


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every decoder fail the test that reaches it."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", lambda *_: pytest.fail("decoded"))


MODES = {
    "JPEG": ["RGB", "L", "1", "CMYK"],
    "PNG": ["RGB", "L", "P", "RGBA", "1", "I;16"],
    "WEBP": ["RGB", "L", "P", "RGBA", "1", "CMYK", "F", "I;16"],
    "GIF": ["RGB", "L", "P", "RGBA", "1", "F", "I;16"],
    "BMP": ["RGB", "L", "P", "RGBA", "1"],
    "TIFF": ["RGB", "L", "P", "RGBA", "1", "CMYK", "F", "I;16"],
}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form in FORMATS for mode in MODES[form]])
def test_a_header_says_what_pil_says_and_decodes_nothing(form: str, mode: str, request: pytest.FixtureRequest) -> None:
    deep = {"F": np.float32, "I;16": np.uint16}
    image = Image.fromarray(np.zeros((30, 41), deep[mode])) if mode in deep else NOISE.convert(mode)
    data = encoded(image, form)
    request.getfixturevalue("undecoded")
    header = inspect(data, LIMIT)
    expected = Image.open(io.BytesIO(data))
    assert (header.form, header.mode, header.width, header.height) == (form, expected.mode, 41, 30)
    assert header.decode_ms > 0 and header.peak_bytes > 0


@pytest.mark.parametrize("form", FORMATS)
def test_twice_the_pixels_of_one_colour_cost_about_twice_as_much(form: str, undecoded: None) -> None:
    def cost(width: int) -> float:
        return inspect(encoded(Image.new("RGB", (width, 1000)), form), LIMIT).decode_ms

    once, twice = cost(1500), cost(3000)
    assert 1.7 < twice / once < 2.1


def test_a_jpeg_of_fifty_megapixels_is_accepted_baseline_and_progressive(undecoded: None) -> None:
    image = Image.new("RGB", (8_660, 5_773), (200, 100, 50))
    for progressive in (False, True):
        data = encoded(image, "JPEG", progressive=progressive)
        refuse_dear(promised(data), len(data), MAX_DECODE_MS)


def test_fifty_megapixels_of_detail_at_the_best_quality_are_accepted() -> None:
    tile = encoded(NOISE.resize((512, 512)), "JPEG", progressive=True, quality=95, subsampling=0)
    header = inspect(tile, LIMIT)
    whole = 20_000_000 / len(tile)
    refuse_dear(header.decode_ms * whole, 20_000_000, MAX_DECODE_MS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_a_png_of_twenty_four_megapixels_is_accepted_whatever_is_on_it(mode: str, undecoded: None) -> None:
    header = encoded(Image.new(mode, (8, 8)), "PNG")
    colour = header[25]
    bare = struct.pack(">IIBBBBB", 6_000, 4_000, 8, colour, 0, 0, 0)
    palette = costly.chunk(b"PLTE", bytes(768)) if mode == "P" else b""
    data = b"\x89PNG\r\n\x1a\n" + costly.chunk(b"IHDR", bare) + palette + costly.chunk(b"IDAT", bytes(100_000))
    refuse_dear(promised(data), len(data), MAX_DECODE_MS)
    large = data + bytes(19_800_000)
    refuse_dear(promised(large), len(large), MAX_DECODE_MS)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_of_twenty_four_megapixels_is_accepted(lossless: bool, undecoded: None) -> None:
    data = encoded(Image.new("RGB", (6_000, 4_000), (9, 99, 200)), "WEBP", lossless=lossless, method=0)
    refuse_dear(promised(data), len(data), MAX_DECODE_MS)


def run_length(width: int, height: int, compression: int) -> bytes:
    palette = b"\1\2\3\0" * 256
    body = b"\0\0" * min(height, 1_000) + b"\0\1"
    size = struct.pack("<IiiHHII", 40, width, height, 1, 8 // compression, compression, len(body))
    start = 54 + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + size + bytes(16) + palette + body


@pytest.mark.parametrize("compression", [1, 2])
@pytest.mark.parametrize("size", [(49_000_000, 1), (7_000, 7_000), (4, 4)])
def test_a_run_length_bitmap_is_refused_by_its_header(compression: int, size: tuple[int, int], undecoded: None) -> None:
    with pytest.raises(UnreadableImage, match="run-length"):
        decode(run_length(*size, compression), LIMIT)


def test_a_webp_of_a_thousand_bytes_is_refused_where_it_takes_long(undecoded: None) -> None:
    data = encoded(Image.new("RGB", (7_000, 7_000)), "WEBP", lossless=True, method=0)
    assert len(data) < 3_000
    with pytest.raises(ImageTooLarge, match="ms"):
        refuse_dear(promised(data, explained=False), len(data), MAX_DECODE_MS)


def test_the_more_bytes_are_sent_the_more_may_be_spent() -> None:
    refuse_dear(400, 10, MAX_DECODE_MS)
    refuse_dear(400, 100_000, MAX_DECODE_MS)
    refuse_dear(1_200, 300_000, MAX_DECODE_MS)
    for ms, sent in ((401, 10), (401, 100_000), (1_201, 300_000), (MAX_DECODE_MS + 1, 20_000_000)):
        with pytest.raises(ImageTooLarge):
            refuse_dear(ms, sent, MAX_DECODE_MS)


def test_a_float_tiff_of_a_few_bytes_is_refused_where_it_takes_long(undecoded: None) -> None:
    data = encoded(Image.new("F", (7_000, 7_000)), "TIFF", compression="zstd")
    with pytest.raises(ImageTooLarge):
        refuse_dear(promised(data), len(data), MAX_DECODE_MS)


@pytest.mark.parametrize("size", [(49_000_000, 1), (1, 49_000_000), (300, 5), (5, 300), (64, 64), (3_000, 40)])
@pytest.mark.parametrize("crop", [None, 224, (20, 900)])
@pytest.mark.parametrize("resize", [None, 60])
@pytest.mark.parametrize("orientation", ["ignore", "apply"])
def test_an_orientation_changes_nothing_about_what_the_resized_size_allows(
    size: tuple[int, int], crop: Any, resize: int | None, orientation: str
) -> None:
    preprocess = Preprocess(resize, crop, orientation=orientation)

    def refused(width: int, height: int) -> bool:
        try:
            preprocess.check(width, height, 40_000)
        except ImageTooLarge:
            return True
        return False

    assert refused(*size) == refused(*reversed(size))
    assert preprocess.cost_ms(*size) == pytest.approx(preprocess.cost_ms(*reversed(size)))


def test_a_picture_that_would_be_resized_to_too_much_is_refused_by_its_header(undecoded: None) -> None:
    data = encoded(Image.new("L", (49_000, 1)), "PNG")
    header = inspect(data, LIMIT)
    with pytest.raises(ImageTooLarge, match="resized"):
        Preprocess().check(header.width, header.height, 4_000_000)


def test_each_scan_is_charged() -> None:
    data = encoded(NOISE.resize((800, 600)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    few, many = inspect(data, LIMIT), inspect(data[:-2] + scan * 60 + data[-2:], LIMIT)
    assert few.coding == many.coding == "progressive"
    assert many.decode_ms > 3 * few.decode_ms


def test_a_component_of_two_planes_is_charged_as_the_larger() -> None:
    data = encoded(NOISE.resize((800, 600)), "JPEG", progressive=True, subsampling=2)
    frame = data.index(b"\xff\xc2")
    renamed = bytearray(data)
    renamed[frame + 13] = renamed[frame + 10]  # the second component takes the name of the first
    scans = bytes(renamed[:-2]) + data[data.rindex(b"\xff\xda") : -2] * 60 + data[-2:]
    whole = data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 60 + data[-2:]
    assert inspect(scans, LIMIT).decode_ms >= inspect(whole, LIMIT).decode_ms


def test_ninety_nine_scans_are_fine_in_a_small_picture_and_refused_in_a_large_one(undecoded: None) -> None:
    data = encoded(NOISE, "JPEG", progressive=True)
    scans = data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 85 + data[-2:]
    refuse_dear(promised(scans), len(scans), MAX_DECODE_MS)
    large = costly.claim(scans, (7_000, 7_000))
    with pytest.raises(ImageTooLarge):
        refuse_dear(promised(large), len(large), MAX_DECODE_MS)


def test_every_picture_that_is_meant_to_be_dear_can_be_inspected() -> None:
    for kind, dials in costly.extremes():
        small = {**dials, "pixels": 0.2, "amount": 0.2}
        try:
            data = costly.KINDS[kind](Dials(small, random.Random(1)))
        except OSError:  # a combination that Pillow does not write
            continue
        try:
            inspect(data, LIMIT)
        except (UnreadableImage, ImageTooLarge) as error:
            assert str(error).endswith(".")
