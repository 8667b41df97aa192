"""Bytes to pictures: every format and mode, and everything that is not one."""

from __future__ import annotations

import contextlib
import gc
import io
import struct
import warnings
import weakref
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from heatserve.imaging import FORMATS, ImageTooLarge, Picture, UnreadableImage, decode, opened

LIMIT = 1_000_000
NOISE = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
RGB = Image.fromarray(NOISE)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(image: Image.Image, kind: str, **options: Any) -> np.ndarray:
    picture = decode(encoded(image, kind, **options), LIMIT)
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_rgb_picture_is_what_pil_decodes_to_the_bit(kind: str) -> None:
    data = encoded(RGB, kind)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(np.asarray(decode(data, LIMIT).image), np.asarray(expected))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_back_the_pixels(kind: str) -> None:
    assert np.array_equal(decoded(RGB, kind), NOISE)


def test_a_camera_jpeg_with_a_second_picture_gives_the_first() -> None:
    data = encoded(RGB, "MPO", save_all=True, append_images=[ImageOps.invert(RGB)], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.abs(np.asarray(decode(data, LIMIT).image).astype(int).mean() - NOISE.mean()) < 1


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels = decoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels == (255, 0, 0)).all(), kind


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_greys_and_palettes_become_rgb(mode: str) -> None:
    image = RGB.convert(mode)
    assert np.array_equal(decoded(image, "PNG"), np.asarray(image.convert("RGB")))


def test_inks_become_rgb() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        assert np.abs(decoded(image, kind).astype(int) - (255, 0, 0)).max() < 12, kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_colour_profile_is_ignored_as_the_stock_handler_does_broken_or_not(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (profile, profile[:50], np.random.default_rng(4).bytes(70_000)):
        assert np.array_equal(decoded(RGB, kind, icc_profile=icc), decoded(RGB, kind)), len(icc)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_parts_are_composited_on_white(kind: str) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (30, 41), dtype=np.uint8)
    alpha[0, :3] = 0, 255, 128
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = Image.fromarray(np.dstack([NOISE, alpha]))
    weight = alpha[..., None] / 255.0
    expected = NOISE * weight + 255 * (1 - weight)
    assert np.abs(decoded(image, kind, **options) - expected).max() <= 1.0
    opaque = Image.fromarray(np.dstack([NOISE, np.full_like(alpha, 255)]))
    assert np.array_equal(decoded(opaque, kind, **options), NOISE)


def test_grey_with_alpha_is_composited_on_white() -> None:
    grey, alpha = NOISE[..., 0], NOISE[..., 1]
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    expected = grey * (alpha / 255.0) + 255 * (1 - alpha / 255.0)
    assert np.abs(decoded(image, "PNG")[..., 2] - expected).max() <= 1.0


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_entry_is_composited_on_white(kind: str) -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.putpixel((2, 1), 0)
    pixels = decoded(image, kind, transparency=0)
    assert tuple(pixels[1, 2]) == (255, 255, 255)
    assert tuple(pixels[0, 0]) == (200, 10, 20)


def test_sixteen_bit_greys_are_scaled_and_not_clipped() -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        expected = np.arange(256).reshape(16, 16)
        assert np.array_equal(decoded(Image.fromarray(levels), kind)[..., 0], expected), kind
    big_endian = Image.frombytes("I;16B", (16, 16), levels.astype(">u2").tobytes())
    assert np.array_equal(decoded(big_endian, "TIFF")[..., 1], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_float_greys_run_from_0_to_1_or_from_0_to_255(white: float) -> None:
    ramp = np.linspace(0, white, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(decoded(Image.fromarray(ramp), "TIFF")[..., 0], np.arange(256).reshape(16, 16))


def test_floats_beyond_any_range_are_stretched_and_nonsense_is_survived() -> None:
    values = np.array([[-1000.0, 0.0, 1000.0], [np.nan, np.inf, -np.inf]], np.float32)
    pixels = decoded(Image.fromarray(values), "TIFF")[..., 0]
    assert pixels[0, 0] == 0 and pixels[0, 2] == 255 and abs(int(pixels[0, 1]) - 128) <= 1
    assert (decoded(Image.fromarray(np.full((3, 3), np.nan, np.float32)), "TIFF") == 0).all()
    assert decoded(Image.fromarray(np.full((3, 3), -5.0, np.float32)), "TIFF").shape == (3, 3, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_upright_picture_is_what_a_viewer_shows(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGB, kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    picture = decode(data, LIMIT)
    assert np.array_equal(np.asarray(picture.upright()), np.asarray(expected))
    assert (picture.width, picture.height) == expected.size
    if kind != "TIFF":  # PIL turns a TIFF itself, as it loads
        assert picture.orientation == orientation
        assert picture.image.size == RGB.size


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(RGB, "JPEG", exif=exif), LIMIT).orientation == 1


def test_broken_exif_is_ignored() -> None:
    rng = np.random.default_rng(2)
    for body in (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + rng.bytes(300)):
        assert decode(encoded(RGB, "JPEG", exif=body), LIMIT).orientation == 1


def test_the_longest_side_is_limited_and_the_shape_kept() -> None:
    picture = Picture(RGB.resize((400, 100)), 6)
    assert picture.upright(80).size == (20, 80)
    assert picture.upright(400).size == (100, 400)
    assert Picture(Image.new("RGB", (5000, 1)), 1).upright(100).size == (100, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_a_picture_or_unreadable_and_nothing_else(kind: str) -> None:
    data = encoded(RGB.resize((160, 120)), kind)
    unreadable = 0
    for length in range(0, len(data), 64):
        try:
            decode(data[:length], LIMIT)
        except UnreadableImage:
            unreadable += 1
    assert unreadable > len(data) // 64 // 2


@pytest.mark.parametrize("kind", FORMATS)
def test_corrupted_bytes_raise_one_of_the_two_errors(kind: str) -> None:
    data = encoded(RGB, kind)
    rng = np.random.default_rng(3)
    for _ in range(100):
        corrupt = bytearray(data)
        for position in rng.integers(0, min(len(data), 400), 4):
            corrupt[position] = rng.integers(0, 256)
        with contextlib.suppress(UnreadableImage, ImageTooLarge):
            decode(bytes(corrupt), LIMIT)


@pytest.mark.parametrize("one", FORMATS)
def test_the_head_of_one_format_on_the_body_of_another_is_unreadable_or_a_picture(one: str) -> None:
    for other in FORMATS:
        with contextlib.suppress(UnreadableImage, ImageTooLarge):
            assert decode(encoded(RGB, one)[:12] + encoded(RGB, other)[12:], LIMIT).image.mode == "RGB"


@pytest.mark.parametrize("data", [b"", b"\0", b"GIF89a", b"\xff\xd8\xff", b"hello" * 100, b"%!PS-Adobe", b"II*\0"])
def test_what_is_no_picture_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode(data, LIMIT)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PCX", "TGA", "JPEG2000", "EPS"])
def test_other_decoders_are_not_reached(kind: str) -> None:
    with pytest.raises(UnreadableImage):
        decode(encoded(RGB, kind), LIMIT)


def test_an_exception_of_any_kind_is_an_unreadable_image(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(RGB, "PNG")
    for error in (MemoryError, OverflowError, SyntaxError, struct.error, RecursionError, KeyError):

        def load(self: object, error: type[Exception] = error) -> None:
            raise error("/secret/path")

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
        with pytest.raises(UnreadableImage) as raised:
            decode(data, LIMIT)
        assert "secret" not in str(raised.value)
        assert raised.value.__suppress_context__


@pytest.mark.parametrize("side", [2000, 12000, 65535])
def test_a_header_with_too_many_pixels_is_refused_before_decoding(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageTooLarge):
            decode(png_header(side, side), LIMIT)


def test_the_operators_limit_counts_and_pils_own_warning_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", NOISE.size // 3 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(encoded(RGB, "PNG"), LIMIT)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(ImageTooLarge):
            decode(encoded(RGB, "PNG"), LIMIT)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_the_limit_itself_is_allowed() -> None:
    assert decode(encoded(RGB, "PNG"), 30 * 41).width == 41
    with pytest.raises(ImageTooLarge):
        decode(encoded(RGB, "PNG"), 30 * 41 - 1)


def test_a_picture_without_pixels_is_unreadable() -> None:
    with pytest.raises(UnreadableImage):
        decode(png_header(0, 10), LIMIT)


def test_a_jpeg_of_thousands_of_empty_scans_is_refused_before_it_is_decoded():
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    assert decode(data, 10**6).width == 64
    scan = data.rindex(b"\xff\xda")
    endless = data[:scan] + data[scan:-2] * 2000 + data[-2:]
    with pytest.raises(UnreadableImage, match="scans"):
        decode(endless, 10**6)


def test_a_jpeg_of_thousands_of_segments_is_refused_before_it_is_opened():
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG")
    data = stream.getvalue()
    segment = b"\xff\xe1\x00\x0aExif\0\0ab"
    assert decode(data[:2] + segment * 20 + data[2:], 10**6).width == 64
    with pytest.raises(UnreadableImage, match="segments"):
        decode(data[:2] + segment * 5000 + data[2:], 10**6)


def test_a_process_without_any_filter_of_warnings_decodes_too() -> None:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        assert np.array_equal(decoded(RGB, "PNG"), NOISE)


def test_a_file_that_waits_holds_no_pixels_after_it_was_decoded() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30)).save(stream, "JPEG")
    file = opened(stream.getvalue(), 10_000)
    picture = decode(stream.getvalue(), 10_000, file=file)
    pixels = weakref.ref(picture.image)
    del picture
    gc.collect()
    assert pixels() is None
    with pytest.raises(RuntimeError, match="once"):
        decode(stream.getvalue(), 10_000, file=file)
