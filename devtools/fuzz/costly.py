"""Costly pictures in every format and coding, with dials for size, content and oddities."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

from devtools.fuzz.dials import MAX_BYTES, Dials, picture, saved
from devtools.fuzz.tiffs import DOUBLES, FORMS, tiff, tiled


def jpeg(dials: Dials) -> bytes:
    """A baseline or progressive JPEG. Its header may claim more pixels than it has."""
    mode = str(dials.pick("mode", "RGB", "RGB", "L", "CMYK"))
    size = dials.size(65_500)
    claimed = dials.pick("claimed", False, True)
    drawn = (min(size[0], 256), min(size[1], 256)) if claimed else size
    data = saved(
        picture(dials, mode, drawn),
        "JPEG",
        quality=dials.pick("quality", 10, 75, 95, 100),
        progressive=dials.pick("progressive", False, True),
        subsampling=dials.pick("subsampling", 0, 1, 2),
        restart_marker_blocks=dials.pick("restarts", 0, 0, 1),
    )
    if claimed:
        data = claim(data, size)
    return JPEG_ODDITIES[str(dials.pick("oddity", *JPEG_ODDITIES))](data, dials)


def claim(data: bytes, size: tuple[int, int]) -> bytes:
    """The same scans in a frame of another size. Decoders fill up the missing part."""
    start = min(found for marker in (0xC0, 0xC1, 0xC2) if (found := data.find(bytes([0xFF, marker]))) > 0)
    return data[: start + 5] + struct.pack(">HH", size[1], size[0]) + data[start + 9 :]


def _more_scans(data: bytes, dials: Dials) -> bytes:
    """The JPEG with one of its scans repeated many times."""
    starts = [index for index in range(len(data) - 1) if data[index] == 0xFF and data[index + 1] == 0xDA][:12]
    which = min(int(dials.share("scan") * len(starts)), len(starts) - 1)
    end = starts[which + 1] if which + 1 < len(starts) else len(data) - 2
    scan = data[starts[which] : end][: dials.number("scan bytes", 12, 10_000)]
    times = min(dials.number("times", 1, 120), MAX_BYTES // len(scan))
    return data[:-2] + scan * times + data[-2:]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _jpeg_with(piece: Callable[[Dials], bytes]) -> Callable[[bytes, Dials], bytes]:
    return lambda data, dials: data[:2] + piece(dials) + data[2:]


def exif(dials: Dials, room: int) -> bytes:
    """EXIF with many tags that all refer to the same bytes."""
    count = min(dials.number("tags", 1, 60_000), room // 12)
    rest = max(0, room - 12 * count)
    entries = b"".join(struct.pack("<HHII", 0x1000 + tag, 7, rest, 10 + 12 * count) for tag in range(count))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(rest)


JPEG_ODDITIES: Mapping[str, Callable[[bytes, Dials], bytes]] = {
    "none": lambda data, dials: data,
    "again none": lambda data, dials: data,
    "scans": _more_scans,
    "fill": _jpeg_with(lambda dials: b"\xff" * dials.number("amount", 100, 1.5e7)),
    "escapes": _jpeg_with(lambda dials: b"\xff\0" * dials.number("amount", 100, 7e6)),
    "segments": _jpeg_with(lambda dials: _segment(0xE5, b"a") * dials.number("amount", 1, 900)),
    "exif": _jpeg_with(lambda dials: _segment(0xE1, exif(dials, 65_000))),
    "exifs": _jpeg_with(lambda dials: _segment(0xE1, exif(dials, 65_000)) * dials.number("amount", 1, 200)),
    "photoshop": _jpeg_with(lambda dials: _segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\0\0\0\0\0\0\0" * 5_000)),
    "end": lambda data, dials: data[: dials.number("cut", 700, len(data) + 700)] + b"\xff\xd9",
}


def png(dials: Dials) -> bytes:
    """A PNG of any colour type and depth, interlaced or not, with chunks of any kind and number."""
    width, height = dials.size()
    colour, depth = (
        (2, 8), (6, 8), (6, 16), (2, 16), (0, 8), (0, 16), (3, 8), (4, 8), (0, 1), (3, 1)
    )[min(int(dials.share("colours") * 10), 9)]  # fmt: skip
    row = 1 + -(-width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth // 8)
    filtered = bytes([int(dials.share("filter") * 5)])
    one = filtered + (bytes(row - 1) if dials.pick("content", True, False) else (bytes(range(256)) * row)[: row - 1])
    packer = zlib.compressobj(1, wbits=int(dials.pick("window", 15, 9)))  # type: ignore[call-overload]
    rows_at_once = max(1, 1_000_000 // row)
    packed = [packer.compress(one * min(rows_at_once, height - top)) for top in range(0, height, rows_at_once)]
    pixels = b"".join([*packed, packer.flush()])[:MAX_BYTES]
    step = max(1, len(pixels) // dials.number("chunks", 1, 9_000))
    pieces = [pixels[start : start + step] for start in range(0, len(pixels), step)]
    interlaced = int(bool(dials.pick("interlaced", False, False, True)))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)),
            chunk(b"PLTE", bytes(range(256)) * 3),
            *([chunk(b"tRNS", b"\0" * {3: 200, 2: 6}.get(colour, 2))] if dials.pick("keyed", False, True) else []),
            PNG_ODDITIES[str(dials.pick("oddity", *PNG_ODDITIES))](dials),
            *(chunk(b"IDAT", piece) for piece in pieces),
            chunk(b"IEND", b""),
        ]
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_BOMB = zlib.compress(bytes(1_000_000), 9)
PNG_ODDITIES: Mapping[str, Callable[[Dials], bytes]] = {
    "none": lambda dials: b"",
    "again none": lambda dials: b"",
    "profiles": lambda dials: chunk(b"iCCP", b"a\0\0" + _BOMB) * dials.number("amount", 1, 9_000),
    "texts": lambda dials: chunk(b"zTXt", b"a\0\0" + _BOMB) * dials.number("amount", 1, 9_000),
    "xmp": lambda dials: chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _BOMB) * dials.number("amount", 1, 9_000),
    "exif": lambda dials: chunk(b"eXIf", exif(dials, dials.number("amount", 100, 1e7))[6:]),
    "raw exif": lambda dials: chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n\n\n" + b"00" * 499_000)),
    "empty": lambda dials: chunk(b"teSt", b"") * dials.number("amount", 1, 800_000),
    "frames": lambda dials: chunk(b"acTL", struct.pack(">II", 2**30, 0)) + chunk(b"fcTL", bytes(26)),
}


def webp(dials: Dials) -> bytes:
    """A lossy or lossless WebP, with or without transparent parts, alone or the first of many frames."""
    size = dials.size(16_383)
    lossless = bool(dials.pick("lossless", False, True))
    image = picture(dials, str(dials.pick("mode", "RGB", "RGBA")), size)
    data = saved(image, "WEBP", lossless=lossless, method=0, quality=dials.pick("quality", 5, 75, 100))
    oddity = dials.pick("oddity", "none", "none", "chunks", "frames")
    if oddity == "chunks":
        data += b"abcd\0\0\0\0" * dials.number("amount", 1, 1e6)
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    if oddity == "frames":
        data = webp_frames(data, size, dials.number("amount", 1, 9_000))
    return data


def webp_frames(data: bytes, size: tuple[int, int], count: int) -> bytes:
    """An animation that shows the same picture again and again."""

    def side(length: int) -> bytes:
        return struct.pack("<I", length - 1)[:3]

    start = data.find(b"VP8L") if b"VP8L" in data[:200] else data.find(b"VP8 ")
    frame = bytes(6) + side(size[0]) + side(size[1]) + bytes(4) + data[start:]
    frames = b"ANMF" + struct.pack("<I", len(frame)) + frame + b"\0" * (len(frame) % 2)
    canvas = b"VP8X\x0a\0\0\0\x12\0\0\0" + side(size[0]) + side(size[1]) + b"ANIM\6\0\0\0" + bytes(6)
    body = b"WEBP" + canvas + frames * max(1, min(count, MAX_BYTES // len(frames)))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(dials: Dials) -> bytes:
    """A GIF with extensions before its frame, which fills the screen or a small part of it."""
    size = dials.size(65_535)
    small = bool(dials.pick("small", False, True))
    drawn = (min(size[0], 64), min(size[1], 64)) if small else size
    image = picture(dials, str(dials.pick("mode", "L", "P")), drawn)
    keyed = {"transparency": 3} if dials.pick("keyed", False, True) else {}
    data = saved(image, "GIF", interlace=dials.pick("interlaced", 0, 1), **keyed)
    data = data[:6] + struct.pack("<HH", *size) + data[10:]
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    amount = dials.number("amount", 1, 5e6)
    oddity = {
        "none": b"",
        "again none": b"",
        "comments": b"!\xfe" + b"\1a" * amount + b"\0",
        "extensions": b"!\1\0" * amount,
        "junk": b"\1" * amount,
    }
    return data[:start] + oddity[str(dials.pick("oddity", *oddity))] + data[start:]


def bmp(dials: Dials) -> bytes:
    """A BMP of any depth and compression, with a palette of any length."""
    size = dials.size()
    bits = int(dials.pick("bits", 24, 32, 16, 8, 8, 4, 1))  # type: ignore[call-overload]
    compression = int(dials.pick("compression", 0, 0, 1, 2, 3))  # type: ignore[call-overload]
    colours = dials.number("colours", 2, 65_536)
    palette = b"\1\2\3\0" * colours if bits <= 8 else b""
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF) if compression == 3 else b""
    row = (size[0] * bits + 31) // 32 * 4
    room = MAX_BYTES - len(palette)
    body = bytes(min(row * size[1], room)) if compression in (0, 3) else b"\0\0" * min(size[1], 5_000_000) + b"\0\1"
    offset = 54 + len(palette) + len(masks)
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(body), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + masks + palette + body


def extremes() -> Iterator[tuple[str, dict[str, float]]]:
    """The kinds and dials that a search begins with: each oddity and each coding in large pictures of one colour."""
    large = {"pixels": 0.92, "shape": 0.1, "content": 0.1, "amount": 0.99, "claimed": 0.9, "times": 0.97}
    large |= {"form": 0.1, "double": 0.1}
    for kind, dial, count in (
        ("jpeg", "oddity", len(JPEG_ODDITIES)),
        ("png", "oddity", len(PNG_ODDITIES)),
        ("webp", "oddity", 4),
        ("gif", "oddity", 5),
        ("bmp", "compression", 5),
        ("tiff", "compression", 10),
    ):
        for index in range(count):
            yield kind, {**large, dial: (index + 0.5) / count}
    yield "webp", {**large, "lossless": 0.9, "mode": 0.9, "oddity": 0.1}
    yield "jpeg", {**large, "progressive": 0.9, "mode": 0.1, "subsampling": 0.1, "oddity": 0.3}
    yield "jpeg", {**large, "progressive": 0.9, "mode": 0.9, "oddity": 0.25}
    yield "tiff", {**large, "compression": 0.05, "mode": 0.25, "value": 0.3}
    yield "bmp", {**large, "compression": 0.5, "bits": 0.5, "shape": 0.8}
    for dial in ("shared", "reversed", "tagged", "cut"):
        yield "tiled", {**large, "across": 0.1, "down": 0.1, "tags": 0.9, "tag bytes": 0.99, "cut": 0.1, dial: 0.99}
    yield "tiled", {**large, "pixels": 0.1, "across": 0.99, "down": 0.99, "cut": 0.1}
    pieces = {"pixels": 0.48, "across": 0.0, "down": 0.0, "cut": 0.1, "deflated": 0.9, "shared": 0.1, "tagged": 0.1}
    for dial, count in (("form", len(FORMS)), ("double", len(DOUBLES))):
        for index in range(count):
            yield "tiled", {**large, **pieces, dial: (index + 0.5) / count}


KINDS: Mapping[str, Callable[[Dials], bytes]] = {
    kind.__name__: kind for kind in (jpeg, png, webp, gif, bmp, tiff, tiled)
}
