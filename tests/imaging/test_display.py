"""Display scaling."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from heatserve.imaging import RULES, grey, scale_of

NOISE = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)


def test_the_maximum_is_that_of_the_positive_part() -> None:
    assert scale_of(NOISE, "maximum") == NOISE.max()
    assert scale_of(-np.abs(NOISE), "maximum") == 0.0


def test_the_percentile_is_that_of_the_positive_part_over_all_pixels() -> None:
    assert scale_of(NOISE, "percentile") == pytest.approx(np.percentile(np.maximum(NOISE, 0), 99), rel=1e-6)


def test_a_map_with_few_positive_pixels_falls_back_to_its_maximum() -> None:
    sparse = np.zeros((50, 40), np.float32)
    sparse[3, 4] = 7
    assert scale_of(sparse, "percentile") == 7.0


@pytest.mark.parametrize("rule", RULES)
def test_nothing_positive_has_scale_zero_and_is_black(rule: str) -> None:
    for empty in (np.zeros((4, 4)), np.zeros((0, 4)), np.full((4, 4), np.nan), np.full((4, 4), -np.inf)):
        assert scale_of(empty, rule) == 0.0
        assert (grey(empty, 0.0) == 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_finite_is_left_out(rule: str) -> None:
    values = NOISE.copy()
    values[0, :3] = np.nan, np.inf, -np.inf
    clean = NOISE.copy()
    clean[0, :3] = 0
    assert scale_of(values, rule) == scale_of(clean, rule)
    assert np.array_equal(grey(values, 1.0), grey(clean, 1.0))


def test_grey_levels_are_the_positive_part_over_the_scale() -> None:
    levels = grey(np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 5.0], np.float32), 2.0)
    assert levels.dtype == np.uint8
    assert levels.tolist() == [0, 0, 64, 128, 255, 255]


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30, 3e38])
def test_tiny_and_huge_attributions_are_shown_alike(size: float) -> None:
    values = np.array([0.0, size], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grey(values, scale_of(values, "maximum")).tolist() == [0, 255]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_that_is_none_gives_black(scale: float) -> None:
    assert (grey(NOISE, scale) == 0).all()


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="percentile"):
        scale_of(NOISE, "minimum")
