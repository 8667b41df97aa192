"""Colour maps, against matplotlib's."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from heatserve.imaging import COLORMAPS, colour

TOLERANCE = {"jet": 2, "hot": 2, "grey": 2, "viridis": 8, "inferno": 8}


@pytest.mark.parametrize("name", TOLERANCE)
def test_a_colour_map_is_matplotlibs(name: str) -> None:
    theirs = matplotlib.colormaps["gray" if name == "grey" else name](np.arange(256))[:, :3] * 255
    assert COLORMAPS[name].shape == (256, 3) and COLORMAPS[name].dtype == np.uint8
    assert np.abs(COLORMAPS[name] - theirs).max() <= TOLERANCE[name]


def test_every_colour_map_is_compared() -> None:
    assert set(COLORMAPS) == set(TOLERANCE)


def test_levels_become_colours() -> None:
    assert np.array_equal(colour(np.array([[0, 255]], np.uint8), "grey"), [[[0, 0, 0], [255, 255, 255]]])


def test_an_unknown_colour_map_is_refused_with_those_allowed() -> None:
    with pytest.raises(ValueError, match="jet"):
        colour(np.zeros((2, 2), np.uint8), "rainbow")


def test_a_colour_map_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError):
        COLORMAPS["jet"][0] = 0
