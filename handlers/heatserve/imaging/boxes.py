"""The box around the strongest region of a map (Zhou et al. 2016, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .display import positive_part


def largest_box(view_map: NDArray[Any], threshold: float) -> tuple[int, int, int, int, float] | None:
    """The bounding box of the largest 4-connected region at or above `threshold` times the map's maximum.

    Gives (x0, y0, x1, y1, score) in pixels of the map [h, w]. Right and bottom are exclusive.
    score: the region's maximum over the map's maximum.
    None stands for a map without a positive part.
    Of regions of equal size the one with the higher maximum is taken, then the upper one.
    """
    positive = positive_part(view_map)
    maximum = float(positive.max()) if positive.size else 0.0
    if maximum <= 0:
        return None
    mask = (positive >= np.float32(threshold * maximum)) & (positive > 0)

    rows, starts, ends, run_of_pixel = _runs(mask)
    roots = _roots(len(rows), *_touching(mask, run_of_pixel))
    areas = np.bincount(roots, ends - starts, minlength=len(rows))
    # Pixels in reading order are runs one after the other: the maximum of a run is the maximum of a segment.
    first_pixels = np.concatenate(([0], np.cumsum(ends - starts)[:-1]))
    peaks = np.zeros(len(rows), np.float32)
    np.maximum.at(peaks, roots, np.maximum.reduceat(positive[mask], first_pixels))

    largest = np.flatnonzero(areas == areas.max())
    region = largest[np.argmax(peaks[largest])]
    members = roots == region
    return (
        int(starts[members].min()),
        int(rows[members].min()),
        int(ends[members].max()),
        int(rows[members].max()) + 1,
        float(peaks[region]) / maximum,
    )


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The horizontal runs of a mask [h, w] in reading order: rows, starts and ends, and the run of every pixel."""
    edge = np.zeros((mask.shape[0], 1), np.int8)
    steps = np.diff(mask.astype(np.int8), axis=1, prepend=edge, append=edge)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    run_of_pixel = np.cumsum((steps[:, :-1] == 1).ravel()).reshape(mask.shape) - 1
    return rows, starts, ends, run_of_pixel


def _touching(mask: NDArray[np.bool_], run_of_pixel: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The pairs (upper run, lower run) that share a column in neighbouring rows, each pair once."""
    both = mask[:-1] & mask[1:]
    upper, lower = run_of_pixel[:-1][both], run_of_pixel[1:][both]
    fresh = np.ones(len(upper), np.bool_)
    fresh[1:] = (upper[1:] != upper[:-1]) | (lower[1:] != lower[:-1])
    return upper[fresh], lower[fresh]


def _roots(count: int, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """The smallest member of the set that each of `count` elements belongs to: union-find over all pairs at once.

    Each round hooks every root onto the smallest root that it touches, then points every element at its root.
    """
    parent = np.arange(count)
    while len(left):
        low, high = np.minimum(left, right), np.maximum(left, right)
        np.minimum.at(parent, high, low)
        grandparent = parent[parent]
        while not np.array_equal(grandparent, parent):
            parent, grandparent = grandparent, grandparent[grandparent]
        left, right = parent[left], parent[right]
        apart = left != right
        left, right = left[apart], right[apart]
    return parent
