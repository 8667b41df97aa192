"""The networks that Captum's hooks suit: those whose functions are all seen. Captum says nothing of the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel
from .kinds import kind_of
from .packed import PackedConvolution
from .rules import Rules

WAY_OUT = "use gradient or integrated_gradients, which suit any network"
#: The functions whose backward pass Captum's DeepLift changes, by autograd's name, with the module that it hooks.
_RESCALED = {
    "Elu": nn.ELU,
    "LeakyRelu": nn.LeakyReLU,
    "MaxPool2DWithIndices": nn.MaxPool2d,
    "Relu": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Softplus": nn.Softplus,
    "Tanh": nn.Tanh,
}
#: Functions that are linear, or a linear one and a constant, by autograd's name.
_LINEAR = (
    *("Add", "Sub", "Neg", "Sum", "Mean", "Addmm", "Mm", "Convolution", "NativeBatchNorm", "CudnnBatchNorm"),
    *("AdaptiveAvgPool2D", "AvgPool2D", "UpsampleBilinear2D", "UpsampleNearest2D", "ConstantPadNd", "Cat", "Stack"),
    *("AccumulateGrad", "AsStrided", "Clone", "Expand", "Permute", "ReshapeAlias", "Select", "Slice", "Split"),
    *("Squeeze", "T", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View", PackedConvolution.__name__),
)
#: Linear where the second factor is a constant.
_SCALING = ("Mul", "Div")


def refuse_sealed_modules(model: nn.Module, name: str) -> None:
    """Raises UnsuitableModel for modules that take no hooks. name: of the attribution."""
    if any(kind_of(module) != "eager" for module in model.modules()):
        raise UnsuitableModel(
            f"Captum's {name} hooks the network's modules, and a part of it is compiled, scripted or exported; give "
            f"the eager network that it was made from, or {WAY_OUT}"
        )


def _run(network: nn.Module, image: Tensor) -> tuple[Tensor, list[type[nn.Module]]]:
    """The network's scores, and the type of each module without parts that ran, once for each run."""
    ran: list[type[nn.Module]] = []
    handles = [
        module.register_forward_hook(lambda module, *_: ran.append(type(module)))
        for module in network.modules()
        if not [*module.children()]
    ]
    scores = network(image.clone())
    for handle in handles:
        handle.remove()
    return scores, ran


def check_rectifiers(name: str, network: nn.Module, image: Tensor) -> None:
    """Raises UnsuitableModel for a network with rectifiers that Captum does not see: it changes `nn.ReLU` alone."""
    with torch.no_grad(), Rules() as rules:
        _, ran = _run(network, image)
    seen = ran.count(nn.ReLU)
    if not seen or seen != rules.count:
        raise UnsuitableModel(
            f"Captum's {name} changes the backward pass of nn.ReLU modules alone, which are {seen} of this network's "
            f"{rules.count} rectifiers; use guided_backpropagation, which finds every ReLU, or gradient"
        )


def check_functions(network: nn.Module, image: Tensor) -> None:
    """Raises UnsuitableModel for a network with functions that Captum's DeepLift would take for linear ones."""
    scores, ran = _run(network, image.requires_grad_())
    counts: dict[str, int] = {}
    met, left = {scores.grad_fn}, [scores.grad_fn]
    while left:
        node: Any = left.pop()
        behind = [before for before, _ in node.next_functions if before is not None]
        stem = type(node).__name__.partition("Backward")[0]
        if not (stem in _LINEAR or (stem in _SCALING and behind == [node.next_functions[0][0]])):
            counts[stem] = counts.get(stem, 0) + 1
        left += [before for before in behind if before not in met]
        met.update(behind)
    image.requires_grad_(False)
    for stem, count in counts.items():
        hooked = ran.count(_RESCALED[stem]) if stem in _RESCALED else 0
        if hooked < count:
            raise UnsuitableModel(
                f"Captum's DeepLift would take a function of this network for a linear one ({stem.lower()}: {count} "
                f"in the graph, and {hooked} in modules that Captum changes); {WAY_OUT}"
            )
