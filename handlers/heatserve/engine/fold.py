"""Batch normalisation in evaluation mode is a fixed scale and shift for each channel: it is folded into the convolution
before it (Jacob et al. 2018, section 3.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .taps import Layer


@dataclass
class Followed:
    """What a forward pass showed: (convolution, batch normalisation that takes its output), and how often each ran."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)


@contextmanager
def following(model: nn.Module) -> Iterator[Followed]:
    """Watches the forward pass that is made inside."""
    seen, handles = Followed(), []
    # With the tensor, whose identity stays taken so, and its version: what worked in place on it came in between.
    made_by: dict[int, tuple[str, Tensor, int]] = {}

    def after(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen.runs[name] += 1
            if isinstance(output, Tensor):
                made_by[id(output)] = name, output, output._version

        return hook

    def before(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.runs[name] += 1
            made = made_by.get(id(inputs[0])) if inputs else None
            if made is not None and made[2] == inputs[0]._version:
                seen.pairs.append((made[0], name))

        return hook

    for name, module in model.named_modules():
        # Where the weight is not a parameter, or made anew before each pass, something else decides what it is.
        if isinstance(module, nn.Conv2d) and "weight" in module._parameters and not module._forward_pre_hooks:
            handles.append(module.register_forward_hook(after(name)))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def foldable(model: nn.Module, seen: Followed, layers: Collection[str]) -> list[tuple[str, str]]:
    """The pairs that run once, each convolution in one of them, and share no weight; not where what lies between them
    is tapped."""
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    times = Counter(convolution for convolution, _ in seen.pairs)
    tapped = {(layer.module, layer.point == "input") for layer in map(Layer.parse, layers)}

    def alone(convolution: str, normalisation: str) -> bool:
        between = (convolution, False) in tapped or (normalisation, True) in tapped
        parameters = [*model.get_submodule(convolution).parameters(), *model.get_submodule(normalisation).parameters()]
        once = seen.runs[convolution] == seen.runs[normalisation] == times[convolution] == 1
        return once and not between and all(uses[id(parameter)] == 1 for parameter in parameters)

    return [pair for pair in seen.pairs if alone(*pair)]


class Fold:
    """One batch normalisation inside its convolution, and the way back."""

    def __init__(self, model: nn.Module, convolution: str, normalisation: str) -> None:
        place, _, self._name = normalisation.rpartition(".")
        self._parent = model.get_submodule(place)
        conv, norm = model.get_submodule(convolution), model.get_submodule(normalisation)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        self._conv, self._norm = conv, norm
        self._before = (conv.weight, conv.bias)
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        # Under the same name: a tap there sees what it saw.
        setattr(self._parent, self._name, nn.Identity().eval())

    def undo(self) -> None:
        self._conv.weight, self._conv.bias = self._before
        setattr(self._parent, self._name, self._norm)
