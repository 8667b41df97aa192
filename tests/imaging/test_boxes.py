"""Boxes, against scipy's connected components."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from heatserve.imaging import largest_box


def expected_boxes(values: np.ndarray, threshold: float) -> set[tuple[int, int, int, int, float]]:
    """All boxes of regions of the largest size (ties are this package's own business)."""
    positive = np.maximum(values, 0)
    mask = (positive >= np.float32(threshold * float(positive.max()))) & (positive > 0)
    labels, count = ndimage.label(mask)
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    found = set()
    for label in np.flatnonzero(areas == areas.max()) + 1:
        rows, columns = ndimage.find_objects(labels)[label - 1]
        peak = float(positive[labels == label].max()) / float(positive.max())
        found.add((columns.start, rows.start, columns.stop, rows.stop, peak))
    return found


def checked(values: np.ndarray, threshold: float) -> None:
    box, expected = largest_box(values, threshold), expected_boxes(values, threshold)
    assert box in expected
    assert box is not None and box[4] == max(peak for *_, peak in expected)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.41, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("smooth", [0, 1, 4])
def test_noise_gives_scipys_largest_component(threshold: float, smooth: int) -> None:
    for seed in range(5):
        noise = np.random.default_rng(seed).standard_normal((60, 83))
        checked(ndimage.gaussian_filter(noise, smooth).astype(np.float32), threshold)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2])))
def test_small_patterns_give_scipys_largest_component(values: np.ndarray) -> None:
    if values.max() > 0:
        checked(values, 0.2)
    else:
        assert largest_box(values, 0.2) is None


def test_a_serpentine_is_one_region_and_diagonals_are_none() -> None:
    serpentine = np.zeros((41, 50), np.float32)
    serpentine[::2] = 1
    serpentine[1::4, -1] = 1
    serpentine[3::4, 0] = 1
    assert largest_box(serpentine, 0.2) == (0, 0, 50, 41, 1.0)
    assert largest_box(serpentine.T, 0.2) == (0, 0, 41, 50, 1.0)
    spiral = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], np.float32)
    assert largest_box(spiral, 0.2) == (0, 0, 5, 5, 1.0)
    assert largest_box(np.eye(5, dtype=np.float32), 0.2) == (0, 0, 1, 1, 1.0)


def test_of_regions_of_one_size_the_higher_wins() -> None:
    assert largest_box(np.array([[0.5, 0, 1, 0, 0.7]], np.float32), 0.2) == (2, 0, 3, 1, 1.0)


def test_the_score_is_the_regions_share_of_the_maximum() -> None:
    values = np.zeros((9, 9), np.float32)
    values[0, 0] = 4
    values[4:7, 3:5] = 1
    assert largest_box(values, 0.2) == (3, 4, 5, 7, 0.25)


def test_a_map_without_positive_part_has_no_box() -> None:
    for empty in (np.zeros((7, 7)), np.full((7, 7), -1.0), np.full((7, 7), np.nan), np.zeros((0, 0))):
        assert largest_box(empty, 0.2) is None


def test_what_is_not_finite_is_no_region() -> None:
    values = np.array([[np.inf, np.inf, 0, 1, np.nan]], np.float32)
    assert largest_box(values, 0.2) == (3, 0, 4, 1, 1.0)


def test_the_worst_noise_takes_milliseconds() -> None:
    checkerboard = (np.indices((224, 224)).sum(0) % 2).astype(np.float32)
    for values in (checkerboard, np.random.default_rng(0).random((224, 224), np.float32)):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            largest_box(values, 0.41)
            times.append(time.perf_counter() - start)
        assert min(times) < 0.05
