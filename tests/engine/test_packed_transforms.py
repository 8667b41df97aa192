"""A packed network under torch's tracer and functional transforms: it goes the ordinary way there."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from heatserve.engine import Explainer
from heatserve.engine.packed_layer import PackedLayer


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_a_packed_network_can_be_traced_and_taken_by_functional_transforms() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()
    plain, images = deepcopy(net).requires_grad_(False), torch.rand(2, 3, 32, 32)
    explainer = Explainer(net, images[:1].clone(), optimize="packed")
    if not any(isinstance(module, PackedLayer) for module in net.modules()):
        pytest.skip("this processor packs nothing")
    traced = torch.jit.trace(net, images)  # type: ignore[no-untyped-call]
    for count in (2, 1):
        torch.testing.assert_close(traced(images[:count]), plain(images[:count]))
    found, right = (torch.func.grad(lambda x, n=n: n(x)[:, 1].sum())(images) for n in (net, plain))
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(torch.func.jacrev(net)(images), torch.func.jacrev(plain)(images))
    torch.testing.assert_close(torch.func.vmap(lambda x: net(x[None])[0])(images), plain(images))
    explainer.close()
