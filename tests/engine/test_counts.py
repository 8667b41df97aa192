"""The counts of active places are those of autograd, at the bounds too."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from heatserve.engine.counts import count, quick
from heatserve.engine.nonlinear import call_of

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hardtanh": functional.hardtanh,
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("rows", [[0], [3, 1, 4], [*range(5)] * 60])
def test_the_count_of_active_places_is_the_sum_of_the_gradients_that_autograd_gives(
    name: str, rows: list[int], layout: torch.memory_format
) -> None:
    given = 4 * torch.randn(5, 8, 6, 7, generator=torch.Generator().manual_seed(1))
    tiny = 1e-45
    edges = torch.tensor([0.0, -0.0, 6.0, 1.0, -1.0, tiny, -tiny, math.inf, -math.inf])
    given.flatten()[: len(edges)] = edges  # of row 0
    given[3].flatten()[: len(edges)] = edges
    given = given.contiguous(memory_format=layout)
    leaf = given.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(FUNCTIONS[name](leaf).sum(), leaf)
    call = call_of(FUNCTIONS[name], (given,), {})
    assert call is not None and quick(call)
    before = given.clone()
    with torch.inference_mode():
        found = count(call, rows)
    assert torch.equal(found.long(), gradient[rows].sum(0).long())
    assert torch.equal(given, before)
    assert found.dtype == (torch.uint8 if len(rows) < 256 else torch.int32)


def test_other_types_and_functions_are_counted_another_way() -> None:
    given = torch.randn(2, 3)
    half, closed = call_of(torch.relu, (given.half(),), {}), call_of(torch.clamp, (given, 0, 1), {})
    assert half is not None and not quick(half)
    assert closed is not None and not quick(closed)
