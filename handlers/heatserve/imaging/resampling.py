"""Linear resampling: each step of an axis is a matrix, so that steps compose by multiplication."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def sample_weights(count: int, centres: NDArray[np.floating[Any]], step: float) -> NDArray[np.float64]:
    """The weights [len(centres), count] that read `count` values at `centres`.

    Value i lies at i + 0.5. The kernel is a triangle of half width max(1, step).
    step: the distance between neighbouring centres. Up to 1 the kernel is linear interpolation, above it a low-pass.
    The border is repeated before the first value and behind the last. Rows sum to 1.
    """
    positions = np.clip(centres, 0.0, count)
    if step <= 1:
        return _linear_weights(count, positions)
    distances = np.abs(positions[:, None] - (np.arange(count) + 0.5)) / max(1.0, step)
    kernel: NDArray[np.float64] = np.clip(1.0 - distances, 0.0, None)
    normalised: NDArray[np.float64] = kernel / kernel.sum(axis=1, keepdims=True)
    return normalised


def _linear_weights(count: int, positions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """`sample_weights` of linear interpolation: two weights in each row, and zeros that take no time."""
    rows = np.arange(len(positions))
    first, second, far = _neighbours(count, positions)
    weights = np.zeros((len(positions), count))
    weights[rows, second] = far
    weights[rows, first] = 1 - far
    return weights


def _neighbours(
    count: int, positions: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The two values that linear interpolation reads at each position, and the weight of the second one.

    At the border both are the same value, and the weight is 0.
    """
    places = np.minimum(np.maximum(positions - 0.5, 0), count - 1)
    first = places.astype(np.intp)
    return first, np.minimum(first + 1, count - 1), places - first


def sampled(values: NDArray[np.float32], centres: NDArray[np.floating[Any]], step: float) -> NDArray[np.float32]:
    """Rows of values, [count, n], read at `centres`: the product of `sample_weights` and `values`, float32.

    Linear interpolation reads two rows for each centre. Then no matrix is made, of which nearly all would be zeros.
    """
    count = len(values)
    if step > 1:
        return product(sample_weights(count, centres, step).astype(np.float32), values)
    first, second, far = _neighbours(count, centres)
    weights = far.astype(np.float32)[:, None]
    found: NDArray[np.float32] = values[first] * (1 - weights) + values[second] * weights
    return found


@lru_cache(maxsize=8)
def resize_weights(count: int, size: int) -> NDArray[np.float32]:
    """The weights [size, count] that stretch `count` values over `size` pixels (align_corners=False).

    A layer's map has the same ones in each answer. All callers share them: they are not to be changed.
    """
    step = count / size
    return sample_weights(count, (np.arange(size) + 0.5) * step, step).astype(np.float32)


def applied(down: NDArray[np.float32], values: NDArray[np.float32], across: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values [h, w] after weights for rows, [H, h], and for columns, [W, w]. The result is float32 [H, W]."""
    return product(product(down, values), across.T)


def product(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product of two matrices, computed by torch.

    NumPy's BLAS has threads of its own. They go on spinning after each product and keep the processors from the
    network's next pass.
    """
    found: NDArray[np.float32] = (torch.from_numpy(one) @ torch.from_numpy(np.ascontiguousarray(other))).numpy()
    return found
