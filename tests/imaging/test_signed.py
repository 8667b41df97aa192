"""The pictures of signed maps, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from heatserve.imaging import overlay, signed_grey

VALUES = np.array([[-2.0, -1.0, -0.5], [0.0, 0.5, 1.0], [3.0, float("nan"), float("-inf")]], np.float32)
PHOTO = Image.new("RGB", (3, 3), (90, 100, 110))
SEEN = np.s_[0:3, 0:3]


def test_zero_is_128_and_the_scale_is_at_both_ends() -> None:
    assert signed_grey(VALUES, 1.0).tolist() == [[1, 1, 64], [128, 192, 255], [255, 128, 128]]
    assert np.array_equal(signed_grey(-VALUES, 1.0).astype(int) + signed_grey(VALUES, 1.0), np.full((3, 3), 256))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_gives_zero_everywhere(scale: float) -> None:
    assert (signed_grey(VALUES, scale) == 128).all()


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30, 3e38])
def test_tiny_and_huge_attributions_are_shown_alike(size: float) -> None:
    assert signed_grey(np.array([-size, 0, size]), size).tolist() == [1, 128, 255]


def test_the_overlay_is_red_above_zero_blue_below_it_and_the_photograph_at_zero() -> None:
    drawn = np.asarray(overlay(PHOTO, signed_grey(VALUES, 1.0), SEEN, "jet", 0.8, signed=True)).astype(int)
    change = drawn - np.asarray(PHOTO)
    assert (change[1, 0] == 0).all()  # zero
    assert change[1, 2, 0] > 50 and change[1, 2, 2] < 0  # red
    assert change[0, 0, 2] > 50 and change[0, 0, 0] < 0  # blue
    assert (np.abs(change[0, 2]) < np.abs(change[0, 0]) + 1).all()
    for colormap in ("hot", "grey"):
        other = overlay(PHOTO, signed_grey(VALUES, 1.0), SEEN, colormap, 0.8, signed=True)
        assert np.array_equal(np.asarray(other), drawn)


def test_the_blend_has_the_root_of_the_share_as_its_strength() -> None:
    level = np.arange(1, 256)
    ends = np.array([[0, 5, 48, 200], [127, 60, 130, 255], [128, 255, 110, 90], [255, 190, 0, 20]], float)
    colours = np.stack([np.interp(level, ends[:, 0], ends[:, 1 + channel]) for channel in range(3)], axis=1)
    expected = 0.7 * np.sqrt(np.abs(level - 128) / 127)[:, None] * colours
    heat, everywhere = level.astype(np.uint8)[None], np.s_[0:1, 0:255]
    drawn = np.asarray(overlay(Image.new("RGB", (255, 1)), heat, everywhere, "jet", 0.7, signed=True))
    assert np.abs(drawn[0] - expected).max() <= 2
