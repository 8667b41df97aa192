"""The structure of a file: what no decoder of pixels needs is left out, and what only costs time is refused."""

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
from devtools.fuzz.dials import Dials
from devtools.fuzz.tiffs import written
from heatserve.imaging import ImageTooLarge, UnreadableImage, decode, inspect

LIMIT = 50_000_000
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, LIMIT).image)


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


def png_with(piece: bytes, behind: bool = False) -> bytes:
    data = encoded(NOISE, "PNG")
    place = data.rindex(b"IEND") - 4 if behind else 33
    return data[:place] + piece + data[place:]


@pytest.mark.parametrize("kind", [b"teSt", b"IDAT", b"tEXt", b"iCCP"])
def test_a_png_of_very_many_chunks_is_refused_before_it_is_opened(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UnreadableImage, match="chunks"):
        inspect(png_with(costly.chunk(kind, b"") * 20_000), LIMIT)


def test_a_png_whose_header_hides_behind_another_chunk_is_refused() -> None:
    data = encoded(NOISE, "PNG")
    for hidden in (data[:8] + costly.chunk(b"teSt", data[16:29]) + data[8:], data[:33] + data[8:33] + data[33:]):
        with pytest.raises(UnreadableImage, match="header"):
            inspect(hidden, LIMIT)


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
    body = costly.exif(Dials({"tags": 0.99}, random.Random(0)), 60_000)
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


def test_a_tiff_is_refused_where_its_structure_costs_more_than_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    decode(written((64, 64), rows=8, shared=False), LIMIT)
    decode(written((64, 64), tile=(16, 16), shared=False), LIMIT)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    for data, why in (
        (written((64, 64), tags=500, tag_bytes=1_000_000), "larger than the file"),
        (written((64, 64), tags=5_000), "tags"),
        (written((300, 300), tile=(1, 1), deflated=False), "more tiles"),
        (written((600, 600), tile=(1, 1)), "numbers"),
        (written((3, 3), tile=(4_000, 4_000)), "far larger"),
        (written((64, 3_000), rows=1), "share bytes"),
        (written((1, 30_000), rows=1, deflated=False), "more tiles"),
    ):
        with pytest.raises(UnreadableImage, match=why):
            inspect(data, LIMIT)


@pytest.mark.parametrize("kind", [3, 4, 6, 8, 9])
def test_a_tag_of_any_type_of_integer_is_charged(kind: int) -> None:
    data = written((640, 640), rows=640)
    plain = struct.pack("<HHII", 259, 3, 1, 8)
    assert plain in data
    assert inspect(data.replace(plain, struct.pack("<HHII", 259, kind, 1, 8)), LIMIT) == inspect(data, LIMIT)


def test_a_directory_that_points_to_itself_is_refused() -> None:
    entry = struct.pack("<HHII", 34665, 4, 1, 8)
    with pytest.raises(UnreadableImage, match="directories"):
        inspect(b"II*\0\x08\0\0\0\1\0" + entry + bytes(4), LIMIT)


CODINGS = [None, "tiff_lzw", "tiff_deflate", "packbits", "zstd", "jpeg"]


@pytest.mark.parametrize(  # JPEG's strips are of eight rows
    ("compression", "rows"), [(each, rows) for each in CODINGS for rows in (1, 8, 1_000) if (each, rows) != ("jpeg", 1)]
)
def test_ordinary_tiffs_are_read_as_pil_reads_them(compression: str | None, rows: int) -> None:
    data = encoded(NOISE, "TIFF", compression=compression, tiffinfo={278: rows})
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def tag(number: int, kind: int, *values: int) -> tuple[int, int, int, bytes]:
    """An entry of a directory: tag, type, count and values."""
    return number, kind, len(values), struct.pack(f"<{len(values)}{ {3: 'H', 4: 'I', 11: 'f'}[kind] }", *values)


def tiff_of(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """A little-endian TIFF with these entries; pixels lie at 8, and the directory behind 4096 of them."""
    room = 4_104 + 2 + 12 * len(entries) + 4
    directory, behind = b"", b""
    for number, kind, count, values in entries:
        place = values.ljust(4, b"\0") if len(values) <= 4 else struct.pack("<I", room + len(behind))
        directory += struct.pack("<HHI", number, kind, count) + place
        behind += values if len(values) > 4 else b""
    head = b"II*\0" + struct.pack("<I", 4_104) + bytes(range(256)) * 16
    return head + struct.pack("<H", len(entries)) + directory + bytes(4) + behind


GREY = [tag(256, 3, 64), tag(257, 3, 64), tag(258, 3, 8), tag(259, 3, 1), tag(262, 3, 1)]
STRIP = [tag(273, 3, 8), tag(279, 3, 4_096)]
TILES = [tag(322, 3, 1), tag(323, 3, 1), tag(324, 3, *[8] * 30_000)]


@pytest.mark.parametrize(
    "entries",
    [
        [*GREY, *TILES[:2], (324, 3, 0, b""), TILES[2]],
        [*GREY, *TILES[:2], (324, 99, 1, b""), TILES[2]],
        [*GREY, *TILES[:2], (324, 18, 1, b""), TILES[2]],
        [*GREY, *TILES[:2], tag(324, 3, 8), TILES[2]],
        [*GREY, *TILES[:2], tag(324, 11, *[8] * 30_000)],
        [*GREY[:3], GREY[4], *TILES, (259, 3, 3, struct.pack("<I", 4_104 + 6 + 12 * 8 + 60_000 - 2))],
        [*GREY, tag(324, 3, 8), tag(273, 3, *[8] * 30_000), tag(278, 3, 1)],
        [*GREY, *STRIP, tag(322, 3, 60_000), tag(323, 3, 60_000)],
        [*GREY[:3], tag(259, 11, 5), GREY[4], *STRIP],
    ],
    ids=["empty", "unknown", "unread", "repeated", "floats", "beyond", "both", "untiled", "float"],
)
def test_a_tiff_that_each_decoder_reads_in_its_own_way_is_refused(
    entries: list[tuple[int, int, int, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.array_equal(pixels(tiff_of([*GREY, *STRIP]))[..., 0].ravel(), np.tile(np.arange(256), 16))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UnreadableImage):
        inspect(tiff_of(entries), LIMIT)


def test_a_tiff_that_pil_reads_with_another_width_of_offsets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"MM\0+" + struct.pack(">HHQ", 8, 0, 16) + bytes(100)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UnreadableImage, match="BigTIFF"):
        inspect(data, LIMIT)


@pytest.mark.parametrize("big", [False, True])
def test_a_little_endian_tiff_of_32_or_64_bits_is_read_as_pil_reads_it(big: bool) -> None:
    data = encoded(NOISE, "TIFF", big_tiff=big)
    assert data[2] == (43 if big else 42)
    assert np.array_equal(pixels(data), np.asarray(NOISE))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_picture_that_opens_with_another_size_than_its_headers_say_is_refused(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, other = encoded(NOISE, form), encoded(NOISE.resize((50, 50)), form)
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *_, **options: original(io.BytesIO(other), **options))
    with pytest.raises(UnreadableImage, match="header"):
        inspect(data, LIMIT)


def test_a_picture_that_opens_in_very_many_pieces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(NOISE, "TIFF")
    original = Image.open

    def cut(*arguments: Any, **options: Any) -> Image.Image:
        image = original(*arguments, **options)
        image.tile *= 30_000
        return image

    monkeypatch.setattr(Image, "open", cut)
    with pytest.raises(UnreadableImage, match="tiles"):
        inspect(data, LIMIT)


def test_the_scans_of_a_jpeg_in_a_tiff_are_those_of_its_first_page() -> None:
    page = NOISE.resize((400, 300))
    one = encoded(page, "TIFF", compression="jpeg")
    many = encoded(page, "TIFF", compression="jpeg", save_all=True, append_images=[page] * 60)
    assert many.count(b"\xff\xda") == 61 * one.count(b"\xff\xda")
    extra = len(many) - len(one)
    alone, first = (inspect(data, LIMIT).decode_ms for data in (one + bytes(extra), many))
    assert first == pytest.approx(alone)
    assert np.array_equal(pixels(many), pixels(one))


@pytest.mark.parametrize(("method", "length"), [(7, None), (7, 0), (6, None), (6, 0), (6, 20)])
def test_each_scan_of_a_jpeg_in_a_tiff_is_charged(method: int, length: int | None) -> None:
    strip = encoded(NOISE.resize((400, 304)).convert("L"), "JPEG", progressive=True)
    scans = strip[:-2] + strip[strip.rindex(b"\xff\xda") : -2] * 60 + strip[-2:]

    def cost(body: bytes) -> float:
        sizes = [tag(256, 3, 400), tag(257, 3, 304), tag(258, 3, 8), tag(259, 3, method), tag(262, 3, 1)]
        places = [tag(273, 4, 5_000), tag(278, 3, 304), tag(279, 4, len(body) if length is None else length)]
        return inspect(tiff_of([*sizes, *places]).ljust(5_000, b"\0") + body, LIMIT).decode_ms

    assert cost(scans) > 3 * cost(strip)
