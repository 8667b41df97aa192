"""A contact sheet: pictures in a grid, each with its title and lines of text below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

#: In pixels: the longest side of a tile's picture, and the room around each tile.
TILE, GAP = 280, 14
#: The sizes of letters, and of a line in them.
_HEADING, _TITLE, _TEXT = 18, 15, 12
_LEADING = 1.3
_BACKGROUND, _INK, _SOFT = (255, 255, 255), (20, 20, 20), (95, 95, 95)
#: The most columns.
_COLUMNS = 6


@dataclass(frozen=True)
class Tile:
    """A picture with text.

    lines: sentences, which are broken to the tile's width.
    """

    title: str
    lines: Sequence[str]
    picture: Image.Image


def sheet(heading: str, tiles: Sequence[Tile], notes: Sequence[str] = ()) -> Image.Image:
    """The tiles in a grid, row by row, RGB. notes: sentences below the grid. Texts should be ASCII: fonts differ."""
    columns = min(_COLUMNS, max(2, math.ceil(math.sqrt(1.5 * len(tiles)))))
    width = columns * (TILE + GAP) + GAP
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    texts = {id(tile): _broken(tile.lines, _TEXT, TILE) for tile in tiles}
    pictures = {id(tile): _fitted(tile.picture) for tile in tiles}
    heights = [
        max(pictures[id(tile)].height for tile in row)
        + round(_LEADING * (_TITLE + _TEXT * max(len(texts[id(tile)]) for tile in row)))
        + GAP
        for row in rows
    ]
    head = _broken([heading], _HEADING, width - 2 * GAP)
    below = _broken(notes, _TEXT, width - 2 * GAP)
    top = round(_LEADING * _HEADING * len(head)) + 2 * GAP
    height = top + sum(heights) + round(_LEADING * _TEXT * len(below)) + 2 * GAP
    image = Image.new("RGB", (width, height), _BACKGROUND)
    _write(image, (GAP, GAP), head, _HEADING, _INK)
    for row, height in zip(rows, heights):
        tallest = max(pictures[id(tile)].height for tile in row)
        for column, tile in enumerate(row):
            left = GAP + column * (TILE + GAP)
            image.paste(pictures[id(tile)], (left, top))
            _write(image, (left, top + tallest + 3), [tile.title], _TITLE, _INK)
            _write(image, (left, top + tallest + 3 + round(_LEADING * _TITLE)), texts[id(tile)], _TEXT, _SOFT)
        top += height
    _write(image, (GAP, top), below, _TEXT, _SOFT)
    return image


def _fitted(picture: Image.Image) -> Image.Image:
    """The picture with its longer side at the tile's."""
    width, height = (max(1, round(side * TILE / max(picture.size))) for side in picture.size)
    return picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BICUBIC)


def _write(image: Image.Image, corner: tuple[int, int], lines: Sequence[str], size: int, ink: Any) -> None:
    drawing = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        drawing.text((corner[0], corner[1] + round(number * _LEADING * size)), line, fill=ink, font=_font(size))


def _broken(texts: Sequence[str], size: int, width: int) -> list[str]:
    """The texts in lines of at most `width` pixels; a longer word is cut."""
    lines: list[str] = []
    for text in texts:
        line = ""
        for word in text.split():
            longer = f"{line} {word}".strip()
            if _font(size).getlength(longer) <= width:
                line = longer
                continue
            lines += [line] if line else []
            while _font(size).getlength(word) > width:
                count = next(n for n in range(len(word), 0, -1) if n == 1 or _font(size).getlength(word[:n]) <= width)
                lines.append(word[:count])
                word = word[count:]
            line = word
        lines.append(line)
    return lines


@cache
def _font(size: int) -> Any:
    """Pillow's own font, which needs no file; its one small size where Pillow has no FreeType."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError, ImportError):
        return ImageFont.load_default()
