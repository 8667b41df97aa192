"""Packing: convolutions of a frozen network take packed weights in place of their own, tried and proved.

Convolutions in one group, and those with a group for each channel, gain time. Others are left as they are: the gradient
of a few channels for each group was slower when packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .packed import Geometry, Ordinary, OrdinaryGradient, Packed, prepare
from .packed_layer import PackedLayer, Packing
from .structure import same
from .taps import Layer


def packings(
    model: nn.Module,
    example: Tensor,
    layers: Collection[str],
    order: torch.memory_format,
    rounded: torch.dtype,
    everything: bool,
) -> list[Packing]:
    """The packings of all convolutions of a frozen model that compute the same packed, which are made.

    Each is compared in one forward pass of the model, on the inputs that it has there and on smaller ones: its output
    and its gradient to the input.

    example: (N, C, H, W) in float32 on a CPU.
    layers: the names of the tapped layers.
    order, rounded: as of a Packing.
    everything: both layouts of a weight and of its gradient, four times the memory of the weights. Otherwise a weight
        stays as it is beside its layout for one picture; gradients of one picture are packed in the order of the pass
        while all of it takes no more than twice the memory of the model's parameters.
    """
    found: dict[nn.Conv2d, tuple[Packed, Packed | Ordinary]] = {}
    tried: set[nn.Module] = set()
    candidates = _candidates(model, layers)
    left = sum(map(_bytes, model.parameters())) - sum(_bytes(module.weight) for module in candidates)

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal left
        if module in tried or not isinstance(module, nn.Conv2d):
            return
        tried.add(module)
        one = _proved(module, inputs, output, 1)
        if one is None:
            return
        if everything:
            several: Packed | Ordinary | None = _proved(module, inputs, output, 2)
        else:
            several = Ordinary(one.geometry, module.weight.detach())
            left -= _bytes(one.gradient.weight)
            if left < 0:
                left += _bytes(one.gradient.weight)
                one = replace(one, gradient=OrdinaryGradient(one.geometry, several.weight, order))
        if several is not None:
            found[module] = one, several

    handles = [module.register_forward_hook(hook) for module in candidates]
    try:
        with torch.no_grad():
            model(example.clone(memory_format=torch.preserve_format))
    finally:
        for handle in handles:
            handle.remove()
    return [Packing(module, packed, order, rounded) for module, packed in found.items()]


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _candidates(model: nn.Module, layers: Collection[str]) -> list[nn.Conv2d]:
    """The convolutions whose weight can be replaced, and of whose children none is tapped."""
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    inside = {layer.module.rpartition(".")[0] for layer in map(Layer.parse, layers)}
    found = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if (
            isinstance(module, nn.Conv2d)
            and not isinstance(module, PackedLayer)
            and "forward" not in module.__dict__
            and not module._forward_pre_hooks  # it may make the weight anew before each pass
            and name not in inside
            and weight is not None
            and (weight.dtype, weight.layout, weight.device.type) == (torch.float32, torch.strided, "cpu")
            and uses[id(weight)] == 1
            and module.groups in (1, module.in_channels)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            found.append(module)
    return found


def _proved(module: nn.Conv2d, inputs: tuple[Any, ...], output: Any, count: int) -> Packed | None:
    """The packed convolution of so many pictures that does what a module did; None where there is none."""
    if len(inputs) != 1 or not isinstance(output, Tensor) or output.ndim != 4:
        return None
    x = inputs[0].detach()
    geometry = Geometry(_pair(module.stride), _pair(module.padding), _pair(module.dilation), module.groups)
    packed = prepare(module.weight, geometry, (count, *x.shape[1:]), (count, *output.shape[1:]))
    if packed is None or not torch.equal(packed.weight.to_dense(), module.weight):
        return None
    right = all(_agrees(module, packed, torch.cat([corner, -corner])[:count]) for corner in _corners(x, module))
    return packed if right else None


def _pair(values: Any) -> tuple[int, int]:
    """Two numbers that a subclass of Conv2d may keep in a list."""
    rows, columns = values
    return int(rows), int(columns)


def _corners(x: Tensor, module: nn.Conv2d) -> list[Tensor]:
    """Corners of one input, as small as a convolution takes without padding and some places larger.

    A class with a forward of its own may pad by the size of its input, and be an ordinary convolution at some sizes,
    but not at sizes that follow each other. Every other size that is tried costs memory for oneDNN's kernels.
    """
    count = 1 if type(module).forward is nn.Conv2d.forward else max(2, *_pair(module.stride))
    least = [int(d) * (int(k) - 1) + 1 for d, k in zip(module.dilation, module.kernel_size)]
    return [x[:1, :, : least[0] + more, : least[1] + more] for more in range(4, 4 + count)]


def _agrees(module: nn.Conv2d, packed: Packed, x: Tensor) -> bool:
    """Whether a module and its packed form have the same output, and the same gradient to their input."""
    found = []
    try:
        with torch.enable_grad():
            for convolve in (type(module).forward.__get__(module), lambda y: packed(y, module.bias)):
                leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
                output = convolve(leaf)
                weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape).cos().to(output)
                found.append((output.detach(), *torch.autograd.grad(output, leaf, weights)))
    except Exception:  # a private operator may raise any error
        return False
    return all(same(theirs, ours) and same(ours, theirs) for theirs, ours in zip(*found))
