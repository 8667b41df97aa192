"""The fixed sizes of passes of draws on CUDA: few shapes, so that libraries choose their kernels for each one at load.

A chunk between two sizes is padded to the next one by copies of its last row. Their answers are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .query import Query

#: The numbers of rows that a pass of draws may have on CUDA.
SIZES = (1, 2, 4, 8, 16, 32, 64)


def sizes_of(device: torch.device) -> tuple[int, ...]:
    """The only numbers of rows that a pass of draws may have on a device, ascending from 1; empty for any number."""
    return SIZES if device.type == "cuda" else ()


def fitting(most: int, sizes: Sequence[int]) -> int:
    """The largest allowed size up to `most`."""
    return max((size for size in sizes if size <= most), default=1) if sizes else most


def padded(
    images: Tensor, queries: Sequence[Sequence[Query]], sizes: Sequence[int]
) -> tuple[Tensor, Sequence[Sequence[Query]]]:
    """The rows of a pass with further ones up to the next allowed size; the further rows have no queries.

    images: (N, C, H, W). More rows than the largest size has stay as they are.
    queries: one sequence for each image.
    """
    further = next((size for size in sizes if size >= len(images)), len(images)) - len(images)
    if not further:
        return images, queries
    return torch.cat([images, images[-1:].expand(further, -1, -1, -1)]), [*queries, *[[]] * further]
