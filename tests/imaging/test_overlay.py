"""The overlay, against its formula in floating point."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from PIL import Image

from heatserve.imaging import overlay

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)
HEAT = RNG.integers(0, 256, (20, 31), dtype=np.uint8)
SEEN = np.s_[2:15, 4:29]
EVERYWHERE = np.s_[0:20, 0:31]
UNSEEN = np.ones((20, 31), np.bool_)
UNSEEN[SEEN] = False


def drawn(opacity: float, heat: np.ndarray = HEAT, seen: tuple[slice, slice] = SEEN) -> np.ndarray:
    image = overlay(Image.fromarray(PHOTO), heat, seen, "jet", opacity)
    assert image.mode == "RGB"
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("opacity", [0.0, 0.35, 1.0])
def test_the_blend_is_the_documented_one(opacity: float) -> None:
    alpha = opacity * np.sqrt(HEAT / 255)[..., None]
    jet = matplotlib.colormaps["jet"](HEAT)[..., :3] * 255
    expected = (1 - alpha) * PHOTO + alpha * jet
    assert np.abs(drawn(opacity) - expected)[SEEN].max() <= 3


def test_what_was_not_seen_is_grey_and_dim() -> None:
    unseen = drawn(0.9)[UNSEEN]
    assert (unseen == unseen[:, :1]).all()
    assert np.abs(unseen[:, 0] - PHOTO[UNSEEN] @ [0.299, 0.587, 0.114] / 2).max() <= 1.5


def test_the_photograph_shows_untouched_where_the_map_is_empty() -> None:
    assert np.array_equal(drawn(1.0, np.zeros_like(HEAT), EVERYWHERE), PHOTO)
    assert np.array_equal(drawn(0.0, HEAT, EVERYWHERE), PHOTO)


def test_a_map_that_is_a_mirrored_view_is_drawn_where_it_says() -> None:
    mirrored = overlay(Image.fromarray(PHOTO[:, ::-1]), HEAT[:, ::-1], np.s_[2:15, 2:27], "jet", 0.5)
    assert np.array_equal(np.asarray(mirrored)[:, ::-1], drawn(0.5))


def test_what_does_not_fit_is_refused() -> None:
    photo = Image.fromarray(PHOTO)
    with pytest.raises(ValueError, match="heat"):
        overlay(photo, HEAT.T.copy(), SEEN, "jet", 0.5)
    with pytest.raises(ValueError, match="opacity"):
        overlay(photo, HEAT, SEEN, "jet", 1.5)
    with pytest.raises(ValueError, match="colour map"):
        overlay(photo, HEAT, SEEN, "sunset", 0.5)


@pytest.mark.parametrize("rows", [(0, 20), (0, 7), (5, 20), (4, 11), (9, 9)])
@pytest.mark.parametrize("columns", [(0, 31), (0, 8), (6, 31), (5, 29), (3, 3)])
def test_each_pixel_around_the_seen_part_is_dim_once_wherever_it_lies(
    rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    seen = (slice(*rows), slice(*columns))
    unseen = np.ones((20, 31), np.bool_)
    unseen[seen] = False
    photo = Image.fromarray(PHOTO)
    found = np.asarray(overlay(photo, np.zeros_like(HEAT), seen, "jet", 0.5)).astype(float)
    luma = np.repeat((PHOTO @ [0.299, 0.587, 0.114] / 2)[..., None], 3, axis=2)
    assert np.abs(found - np.where(unseen[..., None], luma, PHOTO)).max() <= 1.5
    assert np.array_equal(np.asarray(photo), PHOTO)
