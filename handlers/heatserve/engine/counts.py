"""Counts: in how many rows the local derivative of a ReLU is 1, in the fewest passes over a processor's memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .nonlinear import Call, open_bounds

#: The largest number that a count of one byte holds.
BYTE = 255


def count_type(rows: int) -> torch.dtype:
    """The type of a count of at most so many rows."""
    return torch.uint8 if rows <= BYTE else torch.int32


def quick(call: Call) -> bool:
    """Whether `count` can count a call's rows."""
    given = call.operands[0]
    known = call.name == "relu" or open_bounds(call) is not None
    return known and given.dtype == torch.float32 and given.device.type == "cpu"


def count(call: Call, rows: Sequence[int]) -> Tensor:
    """In how many of some rows the derivative is 1, at each place of a row.

    It is torch's own backward pass of a gradient of ones, added up in floats: comparisons of floats that give booleans
    take up to twice the time and more on a processor.
    """
    given, bounds = call.operands[0], open_bounds(call)
    ones = torch.ones((), dtype=given.dtype).expand(given.shape[1:])
    with torch.no_grad():
        total, part = torch.empty_like(given[rows[0]]), torch.empty_like(given[rows[0]])
        for number, row in enumerate(rows):
            into = part if number else total
            if bounds is None:
                torch.ops.aten.threshold_backward.grad_input(ones, given[row], 0, grad_input=into)
            else:
                torch.ops.aten.hardtanh_backward.grad_input(ones, given[row], *bounds, grad_input=into)
            if number:
                total += part
        return total.to(count_type(len(rows)))
