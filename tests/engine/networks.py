"""Networks with random weights, and what other people's libraries say of them.

The oracles work on copies that the engine never saw, with in-place operations switched off.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
import torchvision
from captum.attr import LayerGradCam, Saliency
from torch import Tensor, nn

from heatserve.engine import Explainer

CLASSES = 10
SIZE = (40, 72)

# The layer that maps should come from without being asked, and an earlier one that a query may name.
LAYERS = {
    "resnet18": ("layer4", "layer3"),
    "vgg11": ("features", "features.8"),
    "densenet121": ("features:relu", "features.denseblock3"),
    "mobilenet_v2": ("features", "features.10"),
    "mobilenet_v3_small": ("features", "features.5"),
    "in_place": ("3", "2"),
}
NAMES = tuple(LAYERS)
LINEAR_HEADS = ("resnet18", "densenet121", "mobilenet_v2", "in_place")


class Small(nn.Module):
    """Two convolutions, global average pooling, one linear layer: 6 classes."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), activation(), nn.Conv2d(8, 12, 3, 2, 1), activation())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(self.trunk(x)).flatten(1))


class ReluAsModule(nn.Module):
    """DenseNet with the ReLU, which its forward applies as a function, as a module that a library can hook."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.features, self.relu, self.classifier = net.features, nn.ReLU(), net.classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.relu(self.features(x)).mean((2, 3)))


def seeded(build: Any, seed: int = 0) -> Any:
    """What `build` gives with torch's global generator seeded; the generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def pictures(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Smooth random images, (count, 3, H, W), about as spread as normalised photographs."""
    coarse = torch.randn((count, 3, 5, 7), generator=torch.Generator().manual_seed(seed))
    return 1.5 * nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)


def small(seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> Small:
    net: Small = seeded(lambda: Small(activation), seed)
    for parameter in net.parameters():
        parameter.data *= 2
    return net.eval()


def _vgg11() -> nn.Module:
    # Its own classifier has 120 million weights, which say nothing more here than a thousand.
    with torch.device("meta"):
        net = torchvision.models.vgg11(weights=None, init_weights=False)
        net.classifier = nn.Sequential(nn.Linear(512 * 49, 32), nn.ReLU(True), nn.Linear(32, CLASSES))
    net.to_empty(device="cpu")
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, std=0.1)
    return net


def _in_place() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 4, 2), nn.ReLU(True), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES),
    )  # fmt: skip


@cache
def _prototype(name: str) -> nn.Module:
    def build() -> nn.Module:
        own = {"vgg11": _vgg11, "in_place": _in_place}
        net = own[name]() if name in own else torchvision.models.get_model(name, num_classes=CLASSES)
        # Random batch-norm networks in evaluation mode drown their signal; statistics of real activations keep it.
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
        if norms:
            with torch.no_grad():
                net.train()(pictures(8, seed=99))
        last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.normal_(last.weight, std=last.in_features**-0.5)
        nn.init.normal_(last.bias)
        return net.eval()

    net: nn.Module = seeded(build)
    return net


def network(name: str) -> nn.Module:
    """A fresh copy for the engine."""
    return copy.deepcopy(_prototype(name))


def explainer(name: str, dtype: torch.dtype = torch.float32) -> Explainer:
    """Tapped at both layers of the table. Shared by tests, which leave it as they found it."""
    return _explainer(name, dtype, Explainer.__init__.__kwdefaults__["optimize"])


@cache
def _explainer(name: str, dtype: torch.dtype, optimize: bool) -> Explainer:
    return Explainer(network(name).to(dtype), pictures(2, seed=5).to(dtype), layers=LAYERS[name], optimize=optimize)


def oracle(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy for other people's libraries."""
    return _oracle(name, dtype)


@cache
def _oracle(name: str, dtype: torch.dtype) -> nn.Module:
    net = network(name).to(dtype)
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    net = ReluAsModule(net) if name == "densenet121" else net
    return net.eval().requires_grad_(False)


def oracle_layer(name: str, layer: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return oracle(name, dtype).get_submodule("relu" if layer.endswith(":relu") else layer)


def difference_of_scores(net: nn.Module, target: int, contrast: int | None) -> Any:
    """A function of images: the score `y_target`, or `y_target - y_contrast`, shape (N, 1)."""

    def score(x: Tensor) -> Tensor:
        y = net(x)
        return (y[:, target] - (0 if contrast is None else y[:, contrast]))[:, None]

    return score


def captum_gradcam(name: str, images: Tensor, target: int, contrast: int | None = None, layer: str = "") -> Tensor:
    """(N, h, w), by Captum."""
    module = oracle_layer(name, layer or LAYERS[name][0], images.dtype)
    method = LayerGradCam(difference_of_scores(oracle(name, images.dtype), target, contrast), module)
    return method.attribute(images, target=0, relu_attributions=True)[:, 0].detach()


def captum_gradient(net: nn.Module, images: Tensor, target: int, contrast: int | None = None) -> Tensor:
    """(N, C, H, W), by Captum."""
    score = difference_of_scores(net, target, contrast)
    return Saliency(score).attribute(images.clone().requires_grad_(), target=0, abs=False).detach()


def weights_times_activations(name: str, images: Tensor, target: int, contrast: int | None = None) -> Tensor:
    """CAM by its definition: the last linear layer's weights, and activations taken by a hook of our own."""
    net = oracle(name, images.dtype)
    taken: list[Tensor] = []
    handle = oracle_layer(name, LAYERS[name][0], images.dtype).register_forward_hook(
        lambda _m, _i, out: taken.append(out.clone())
    )
    with torch.no_grad():
        net(images)
    handle.remove()
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    weight = linear.weight[target] - (0 if contrast is None else linear.weight[contrast])
    return torch.einsum("k,nkhw->nhw", weight, taken[0])


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference as a fraction of the largest value of `other`; shapes must agree."""
    assert one.shape == other.shape, (one.shape, other.shape)
    largest = other.abs().max().item()
    return (one - other).abs().max().item() / largest if largest else one.abs().max().item()
