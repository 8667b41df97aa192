"""TIFF files that Pillow writes, and some that no program would write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image

from devtools.fuzz.dials import Dials, picture, saved


class Form(NamedTuple):
    """The way that numbers are stored.

    order: of the bytes, as `struct` names it.
    big: whether offsets have 64 bits.
    """

    order: str = "<"
    big: bool = False

    def head(self, start: int) -> bytes:
        """The head of a file whose directory lies at `start`."""
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(self.order + "HHHQ", 43, 8, 0, start)
        return mark + struct.pack(self.order + "HI", 42, start)

    def room(self, entries: int) -> int:
        """Bytes of a directory."""
        return 8 + 20 * entries + 8 if self.big else 2 + 12 * entries + 4

    def directory(self, entries: list[tuple[int, int, int, int]]) -> bytes:
        """A directory of entries: tag, type, count, and the value or its place."""
        place = "Q" if self.big else "I"
        packed = [struct.pack(self.order + ("Q" if self.big else "H"), len(entries) % 65_536)]
        for tag, kind, count, value in entries:
            alone = "H" if kind == 3 and count == 1 else place if count != 1 or kind != 4 else "I"
            packed.append(struct.pack(self.order + "HH" + place, tag, kind, count))
            packed.append(struct.pack(self.order + alone, value).ljust(struct.calcsize("<" + place), b"\0"))
        return b"".join([*packed, bytes(8 if self.big else 4)])


PLAIN = Form()
#: This form has a head of 64 bits, which Pillow reads as one of 32 bits. Its directory then lies at _HIDDEN.
MISREAD, _HIDDEN = Form(">", True), 0x80000
FORMS = (PLAIN, PLAIN, Form(">"), Form("<", True), MISREAD)
_DOUBLES: Mapping[str, tuple[int, int, int]] = {
    "empty": (3, 0, 0),
    "unknown": (99, 1, 0),
    "before": (4, 1, 8),
    "behind": (4, 1, 8),
}
#: Names of entries that stand before or behind another entry of the same tag.
DOUBLES = ("none", "none", "none", "none", *_DOUBLES)


def written(
    size: tuple[int, int],
    tile: tuple[int, int] | None = None,
    rows: int = 1,
    deflated: bool = True,
    reversed_bits: bool = False,
    shared: bool = True,
    tags: int = 0,
    tag_bytes: int = 0,
    form: Form = PLAIN,
    double: str = "none",
) -> bytes:
    """An 8-bit grey TIFF of this size whose pixels are all 0.

    tile: width and height of its tiles. Without them it is cut into strips of `rows` rows.
    shared: all tiles or strips point to the same bytes.
    tags: the number of further tags, which all point to the same `tag_bytes` bytes.
    double: a second entry for the places of the tiles (DOUBLES).
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
    start = _HIDDEN if form == MISREAD else len(form.head(0))
    stored = Form(form.order) if form == MISREAD else form
    places_at = 324 if tile else 273
    pixels = start + stored.room(len(entries) + 2 + tags + (double != "none"))
    lists = pixels + copies * len(packed)
    more = lists + 8 * count
    offsets_at, lengths_at = (lists, lists + 4 * count) if count > 1 else (pixels, len(packed))
    directory = [(tag, kind, 1, value) for tag, kind, value in entries]
    directory += [(places_at, 4, count, offsets_at), (places_at + (1 if tile else 6), 4, count, lengths_at)]
    directory += [(1_000 + tag, 7, tag_bytes, more) for tag in range(tags)]
    if double != "none":
        directory.insert(len(directory) if double == "behind" else 0, (places_at, *_DOUBLES[double]))
    places = [pixels + index % copies * len(packed) for index in range(count)]
    return b"".join(
        [
            (form.head(16) + _harmless(form) if form == MISREAD else form.head(start)).ljust(start, b"\0"),
            stored.directory(sorted(directory, key=lambda entry: entry[0])),
            packed * copies,
            struct.pack(f"{form.order}{count}I", *places),
            struct.pack(form.order + "I", len(packed)) * count,
            bytes(tag_bytes if tags else 0),
        ]
    )


def _harmless(form: Form) -> bytes:
    """A directory of a picture of 8 x 8 pixels."""
    entries = [(256, 3, 8), (257, 3, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 3, 8), (279, 3, 64)]
    return form.directory([(tag, kind, 1, value) for tag, kind, value in entries])


def tiff(dials: Dials) -> bytes:
    """A TIFF in a compression and mode that Pillow writes."""
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
    """A TIFF that this module writes, with tiles of any size, strips that share their bytes and tags that overlap."""
    return written(
        dials.size(),
        tile=(dials.number("across", 1, 20_000), dials.number("down", 1, 20_000)) if dials.pick("cut", 1, 0) else None,
        rows=dials.number("rows", 1, 100_000),
        deflated=bool(dials.pick("deflated", True, False)),
        reversed_bits=bool(dials.pick("reversed", False, True)),
        shared=bool(dials.pick("shared", True, False)),
        tags=dials.number("tags", 1, 60_000) if dials.pick("tagged", False, True) else 0,
        tag_bytes=dials.number("tag bytes", 1, 1e7),
        form=FORMS[min(int(dials.share("form") * len(FORMS)), len(FORMS) - 1)],
        double=str(dials.pick("double", *DOUBLES)),
    )
