"""TIFF files: those that Pillow writes, and some that no program would write."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from devtools.fuzz.dials import Dials, picture, saved


def written(
    size: tuple[int, int],
    tile: tuple[int, int] | None = None,
    rows: int = 1,
    deflated: bool = True,
    reversed_bits: bool = False,
    shared: bool = True,
    tags: int = 0,
    tag_bytes: int = 0,
) -> bytes:
    """An 8-bit grey TIFF of this size whose pixels are all 0.

    tile: width and height of its tiles; without, it is cut into strips of `rows` rows. shared: all of them point to
    the same bytes. tags: further ones, that all point to the same `tag_bytes` bytes.
    """
    width, height = size
    piece = tile or (width, min(rows, height))
    count = min(-(-width // piece[0]) * -(-height // piece[1]), 1_000_000)
    raw = bytes(min(piece[0] * piece[1], 60_000_000))
    packed = zlib.compress(raw) if deflated else raw[:15_000_000]
    copies = 1 if shared else max(1, min(count, 15_000_000 // len(packed)))
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8 if deflated else 1), (262, 3, 1), (277, 3, 1),
        (266, 3, 2 if reversed_bits else 1),
    ]  # fmt: skip
    entries += [(322, 4, tile[0]), (323, 4, tile[1])] if tile else [(278, 4, rows)]
    places = [index % copies * len(packed) for index in range(count)]
    total = len(entries) + 2 + tags
    pixels = 8 + 2 + 12 * total + 4
    lists = pixels + copies * len(packed)
    more = lists + 8 * count
    offsets_at, lengths_at = (lists, lists + 4 * count) if count > 1 else (pixels, len(packed))
    directory = [(tag, kind, 1, value) for tag, kind, value in entries]
    directory += [(324 if tile else 273, 4, count, offsets_at), (325 if tile else 279, 4, count, lengths_at)]
    directory += [(1_000 + tag, 7, tag_bytes, more) for tag in range(tags)]
    packed_directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(directory))
    return b"".join(
        [
            b"II*\0\x08\0\0\0",
            struct.pack("<H", total % 65_536),
            packed_directory,
            bytes(4),
            packed * copies,
            struct.pack(f"<{count}I", *(pixels + place for place in places)),
            struct.pack("<I", len(packed)) * count,
            bytes(tag_bytes if tags else 0),
        ]
    )


def tiff(dials: Dials) -> bytes:
    """Every compression and mode that Pillow writes."""
    compression, modes = (
        ("tiff_deflate", ("RGB", "RGBA", "F", "I", "I;16", "L", "CMYK", "LAB", "P")),
        ("tiff_lzw", ("RGB", "RGBA", "F", "I;16", "L", "CMYK")),
        ("zstd", ("RGB", "RGBA", "F", "I;16", "LA")),
        ("packbits", ("RGB", "L", "RGBA", "F")),
        ("jpeg", ("RGB", "L", "CMYK")),
        ("group4", ("1",)),
        ("group3", ("1",)),
        ("tiff_ccitt", ("1",)),
        ("lzma", ("RGB", "F")),
        ("raw", ("RGB", "LAB", "F", "I;16")),
    )[min(int(dials.share("compression") * 10), 9)]
    mode = str(dials.pick("mode", *modes))
    tags = {274: dials.pick("orientation", 1, 1, 6, 3)}
    if compression != "raw":
        tags[278] = dials.number("rows", 1, 5_000)
    if compression in ("tiff_deflate", "tiff_lzw", "zstd") and mode in ("RGB", "L", "RGBA"):
        tags[317] = dials.pick("predictor", 1, 2)
    source = "L" if mode == "LAB" else mode
    image = picture(dials, source, dials.size())
    if mode == "LAB":
        image = Image.merge("LAB", [image] * 3)
    return saved(image, "TIFF", compression=None if compression == "raw" else compression, tiffinfo=tags)


def tiled(dials: Dials) -> bytes:
    """A TIFF that is written here: tiles of any size, strips that share their bytes, tags that overlap."""
    return written(
        dials.size(),
        tile=(dials.number("across", 1, 20_000), dials.number("down", 1, 20_000)) if dials.pick("cut", 1, 0) else None,
        rows=dials.number("rows", 1, 100_000),
        deflated=bool(dials.pick("deflated", True, False)),
        reversed_bits=bool(dials.pick("reversed", False, True)),
        shared=bool(dials.pick("shared", True, False)),
        tags=dials.number("tags", 1, 60_000) if dials.pick("tagged", False, True) else 0,
        tag_bytes=dials.number("tag bytes", 1, 1e7),
    )
