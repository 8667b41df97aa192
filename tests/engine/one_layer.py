"""A small network with one function between two linear layers, and SmoothGrad's mean by autograd alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from heatserve.engine import Explainer, Query
from heatserve.engine.sampling import Noise

DOUBLE = torch.float64
IMAGE = torch.rand((1, 3, 12, 10), generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
SIGMA = 0.3


class Net(nn.Module):
    """A convolution, a function, and a linear layer."""

    def __init__(self, between: Callable[[Tensor], Tensor], channels: int = 4, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.between = between
        with torch.no_grad():
            size = between(self.first(IMAGE.float())).flatten(1).shape[1]
        self.last = nn.Linear(size, classes)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.between(self.first(images)).flatten(1))


def of(between: Callable[[Tensor], Tensor], **settings: int) -> nn.Module:
    """The network in double precision, with its parameters frozen."""
    return Net(between, **settings).double().eval().requires_grad_(False)


def ours(net: nn.Module, method: str = "smoothdiff", samples: int = 10, **query: object) -> Tensor:
    """The attribution of the image, (C, H, W)."""
    asked = Query(method, target=1, samples=samples, noise_level=SIGMA, **query)  # type: ignore[arg-type]
    with_net = Explainer(net, IMAGE.clone())
    try:
        return with_net.explain(IMAGE, asked)[0].values
    finally:
        with_net.close()


def noisy(samples: int, seed: int = 0) -> Tensor:
    return Noise(IMAGE[0], SIGMA, seed).draw(0, samples)


def mean_gradient(net: nn.Module, samples: int, target: int = 1, seed: int = 0) -> Tensor:
    """SmoothGrad by autograd alone: the mean of the gradients of the same noisy copies."""
    copies = noisy(samples, seed).requires_grad_()
    (found,) = torch.autograd.grad(net(copies)[:, target].sum(), copies)
    return found.mean(0)


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def gradient(net: nn.Module) -> Tensor:
    """The gradient at the image itself."""
    leaf = IMAGE.clone().requires_grad_()
    (found,) = torch.autograd.grad(net(leaf)[0, 1], leaf)
    return found[0]
