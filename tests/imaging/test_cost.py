"""What a picture may cost is decided from its header: refused, accepted, and never decoded to find out."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from devtools.fuzz import costly
from devtools.fuzz.tiffs import tiff
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


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK", "F", "I;16"])
def test_a_header_says_what_pil_says_and_decodes_nothing(form: str, mode: str, request: pytest.FixtureRequest) -> None:
    deep = {"F": np.float32, "I;16": np.uint16}
    image = Image.fromarray(np.zeros((30, 41), deep[mode])) if mode in deep else NOISE.convert(mode)
    try:
        data = encoded(image, form)
    except (OSError, ValueError):
        pytest.skip(f"{form} has no {mode}")
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


# What must be accepted


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


# What a few bytes may cost


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


# Resized sizes


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


# JPEG


def jpeg_with(piece: bytes, **options: Any) -> bytes:
    data = encoded(NOISE, "JPEG", **options)
    return data[:2] + piece + data[2:]


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\x00", b"\xff\x01", b"\xff\xd0", b"\xff\x02", b"\0"])
def test_what_fills_a_jpeg_reaches_no_decoder(filling: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = encoded(NOISE, "JPEG")
    data = b"\xff\xd8\xff" + filling * 300_000 + plain[2:]
    opened = []
    original = Image.open

    def spied(stream: io.BytesIO, **options: Any) -> Image.Image:
        opened.append(len(stream.getvalue()))
        return original(stream, **options)

    monkeypatch.setattr(Image, "open", spied)
    found = pixels(data)
    assert opened[0] <= len(plain) + 2
    assert np.array_equal(found, pixels(plain))


def test_segments_that_say_nothing_about_pixels_are_left_out() -> None:
    for segment in (b"\xff\xe5\0\5abc", b"\xff\xfe\0\5abc", b"\xff\xed\0\x10Photoshop 3.0\0"):
        assert np.array_equal(pixels(jpeg_with(segment * 300)), pixels(jpeg_with(b"")))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_colours_are_those_that_pil_decodes_with_every_segment(mode: str) -> None:
    data = encoded(NOISE.convert(mode), "JPEG", comment=b"a", icc_profile=bytes(300), dpi=(72, 72))
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    adobe = data[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0" + data[2:]
    assert np.array_equal(pixels(adobe), np.asarray(Image.open(io.BytesIO(adobe)).convert("RGB")))


def test_each_scan_is_charged() -> None:
    data = encoded(NOISE.resize((800, 600)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    few, many = inspect(data, LIMIT), inspect(data[:-2] + scan * 60 + data[-2:], LIMIT)
    assert few.coding == many.coding == "progressive"
    assert many.decode_ms > 3 * few.decode_ms


def test_ninety_nine_scans_are_fine_in_a_small_picture_and_refused_in_a_large_one(undecoded: None) -> None:
    data = encoded(NOISE, "JPEG", progressive=True)
    scans = data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 85 + data[-2:]
    refuse_dear(promised(scans), len(scans), MAX_DECODE_MS)
    large = costly.claim(scans, (7_000, 7_000))
    with pytest.raises(ImageTooLarge):
        refuse_dear(promised(large), len(large), MAX_DECODE_MS)


# PNG


def png_with(piece: bytes, behind: bool = False) -> bytes:
    data = encoded(NOISE, "PNG")
    place = data.rindex(b"IEND") - 4 if behind else 33
    return data[:place] + piece + data[place:]


@pytest.mark.parametrize("kind", [b"teSt", b"IDAT", b"tEXt", b"iCCP"])
def test_a_png_of_very_many_chunks_is_refused_before_it_is_opened(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UnreadableImage, match="chunks"):
        inspect(png_with(costly.chunk(kind, b"") * 20_000), LIMIT)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_texts_and_profiles_of_a_png_are_never_unpacked(
    kind: bytes, behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.PngImagePlugin._safe_zlib_decompress", lambda *_: pytest.fail("unpacked"))
    bomb = costly.chunk(kind, b"a\0\0" + zlib.compress(bytes(900_000)))
    assert np.array_equal(pixels(png_with(bomb * 50, behind)), np.asarray(NOISE))


def orientation_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "a description that is longer than an entry"
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("behind", [False, True])
def test_a_png_may_declare_its_orientation_in_front_of_its_pixels_or_behind(behind: bool) -> None:
    exif = orientation_exif(6).removeprefix(b"Exif\0\0")
    text = exif.hex()
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    raw = f"Raw profile type exif\0\0\n\n{len(exif)}\n{text}".encode()
    for piece in (
        costly.chunk(b"eXIf", exif),
        costly.chunk(b"iTXt", xmp),
        costly.chunk(b"tEXt", raw.replace(b"\0\0", b"\0")),
        costly.chunk(b"zTXt", raw[:23] + zlib.compress(raw[23:])),
    ):
        data = png_with(piece, behind)
        found = decode(data, LIMIT)
        image = Image.open(io.BytesIO(data))
        image.load()
        assert found.orientation == 6 == image.getexif()[0x0112]


def test_a_jpeg_may_declare_its_orientation_in_exif_or_xmp() -> None:
    exif = orientation_exif(8)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="8"/>'
    halves = exif[:20], b"Exif\0\0" + exif[20:]
    for bodies in ((exif,), (xmp,), halves):
        data = jpeg_with(b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies))
        assert decode(data, LIMIT).orientation == 8 == Image.open(io.BytesIO(data)).getexif()[0x0112]


def test_exif_whose_tags_share_their_bytes_is_not_read_tag_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.TiffImagePlugin.ImageFileDirectory_v2.load", lambda *_: pytest.fail("read"))
    body = costly.exif(costly.Dials({"tags": 0.99}, random.Random(0)), 60_000)
    for data in (
        jpeg_with(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body),
        png_with(costly.chunk(b"eXIf", body[6:])),
        encoded(NOISE, "WEBP", exif=body, lossless=True),
    ):
        assert decode(data, LIMIT).orientation == 1


def test_the_first_frame_of_an_animated_png_is_the_picture() -> None:
    frames = [NOISE, ImageOps.invert(NOISE)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels(data), np.asarray(NOISE))


def test_a_png_that_breaks_off_is_what_pil_says_it_is() -> None:
    data = encoded(NOISE, "PNG")
    for length in range(8, len(data), 7):
        try:
            image = Image.open(io.BytesIO(data[:length]))
            image.load()
        except Exception:
            with pytest.raises(UnreadableImage):
                decode(data[:length], LIMIT)
        else:
            assert np.array_equal(pixels(data[:length]), np.asarray(image))


# GIF, WebP


def gif_with(piece: bytes) -> bytes:
    data = encoded(NOISE.convert("P"), "GIF", transparency=3)
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + piece + data[start:]


@pytest.mark.parametrize("piece", [b"!\xfe" + b"\1a" * 20_000 + b"\0", b"!\1\0" * 20_000])
def test_a_gif_of_very_many_blocks_is_refused_before_it_is_opened(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UnreadableImage, match="blocks"):
        inspect(gif_with(piece), LIMIT)


@pytest.mark.parametrize("piece", [b"\1" * 100_000, b"!\xfe\3abc\3abc\0", b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"])
def test_what_stands_before_a_gifs_first_frame_changes_no_pixel(piece: bytes) -> None:
    assert np.array_equal(pixels(gif_with(piece)), pixels(gif_with(b"")))


def test_a_webp_of_very_many_chunks_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UnreadableImage, match="chunks"):
        inspect(encoded(NOISE, "WEBP") + b"abcd\0\0\0\0" * 20_000, LIMIT)


@pytest.mark.parametrize("size", [(16_383, 16_383), (8_000, 8_000)])
def test_a_webp_with_too_many_pixels_is_refused_before_its_canvas_is_made(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    width, height = (struct.pack("<I", side - 1)[:3] for side in size)
    canvas = b"VP8X\x0a\0\0\0\0\0\0\0" + width + height
    for lossless in (False, True):
        data = encoded(NOISE, "WEBP", lossless=lossless)
        with pytest.raises(ImageTooLarge):
            inspect(data[:12] + canvas + data[12:], LIMIT)


# TIFF


def test_a_tiff_is_refused_where_its_structure_costs_more_than_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    decode(tiff((64, 64), rows=8, shared=False), LIMIT)
    decode(tiff((64, 64), tile=(16, 16), shared=False), LIMIT)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    for data, why in (
        (tiff((64, 64), tags=500, tag_bytes=1_000_000), "larger than the file"),
        (tiff((64, 64), tags=5_000), "tags"),
        (tiff((300, 300), tile=(1, 1)), "tiles"),
        (tiff((3, 3), tile=(4_000, 4_000)), "far larger"),
        (tiff((64, 3_000), rows=1), "share bytes"),
        (tiff((1, 30_000), rows=1), "tiles"),
    ):
        with pytest.raises(UnreadableImage, match=why):
            inspect(data, LIMIT)


def test_a_directory_that_points_to_itself_is_refused() -> None:
    entry = struct.pack("<HHII", 34665, 4, 1, 8)
    with pytest.raises(UnreadableImage, match="directories"):
        inspect(b"II*\0\x08\0\0\0\1\0" + entry + bytes(4), LIMIT)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "zstd", "jpeg"])
@pytest.mark.parametrize("rows", [1, 8, 1_000])
def test_ordinary_tiffs_are_read_as_pil_reads_them(compression: str | None, rows: int) -> None:
    if compression == "jpeg" and rows == 1:
        pytest.skip("JPEG's strips are of eight rows")
    data = encoded(NOISE, "TIFF", compression=compression, tiffinfo={278: rows})
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


# Whatever is thrown at it


def test_every_picture_that_is_meant_to_be_dear_can_be_inspected() -> None:
    for kind, dials in costly.extremes():
        small = {**dials, "pixels": 0.2, "amount": 0.2}
        try:
            data = costly.KINDS[kind](costly.Dials(small, random.Random(1)))
        except OSError:  # a combination that Pillow does not write
            continue
        try:
            inspect(data, LIMIT)
        except (UnreadableImage, ImageTooLarge) as error:
            assert str(error).endswith(".")
