"""The contact sheet: every picture is on it once, whole, in order, and no text leaves its tile."""

from __future__ import annotations

import numpy as np
from PIL import Image

from heatserve.imaging import Tile, sheet
from heatserve.imaging.sheet import GAP, TILE

COLOURS = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (200, 0, 200), (0, 200, 200), (240, 180, 0), (120, 60, 0)]


def places(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The box of a colour: left, top, right, bottom."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_every_picture_is_whole_and_in_its_place_row_by_row() -> None:
    sizes = [(100, 60), (560, 280), (280, 280), (30, 60), (1000, 10), (280, 279), (5, 5)]
    made = sheet("a heading", [Tile("x", ["y"], Image.new("RGB", size, c)) for size, c in zip(sizes, COLOURS)])
    boxes = [places(made, colour) for colour in COLOURS]
    for (width, height), (left, top, right, bottom) in zip(sizes, boxes):
        longest = max(width, height)
        assert (right - left, bottom - top) == (round(width * TILE / longest), round(height * TILE / longest))
    assert [box[0] for box in boxes] == [GAP + (TILE + GAP) * column for column in (0, 1, 2, 3, 0, 1, 2)]
    assert [box[1] for box in boxes[:4]] == [boxes[0][1]] * 4 and boxes[4][1] > max(box[3] for box in boxes[:4])


def test_long_texts_are_broken_and_stay_below_their_own_picture() -> None:
    long = "word " * 60 + "x" * 300
    tiles = [
        Tile("name", [long if number == 1 else "short"], Image.new("RGB", (280, 280), "red")) for number in range(3)
    ]
    made = np.asarray(sheet("h", tiles).convert("L"))
    ink = made < 160
    red = int(np.asarray(Image.new("L", (1, 1), "red"))[0, 0])
    below = int(np.nonzero((made == red).any(1))[0].max()) + 1
    for column in range(3):
        right = (column + 1) * (TILE + GAP)
        assert not ink[below:, right : right + GAP].any()
    assert ink[below + 100 :, GAP + TILE : 2 * (TILE + GAP)].any() and not ink[below + 100 :, :TILE].any()
    assert not ink[-GAP // 2 :].any()


def test_notes_and_an_empty_line_are_taken() -> None:
    without = sheet("h", [Tile("a", [""], Image.new("RGB", (9, 9)))])
    assert sheet("h", [Tile("a", [""], Image.new("RGB", (9, 9)))], ["a note"]).height > without.height
