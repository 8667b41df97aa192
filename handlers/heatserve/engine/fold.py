"""Folds: a convolution takes over the batch normalisation behind it (Jacob et al. 2018, section 3.2).

In evaluation mode a batch normalisation is a fixed scale and shift for each channel.
"""

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
    """The order of convolutions and batch normalisations in one forward pass.

    pairs: the names of a convolution and of the batch normalisation that takes its output.
    runs: how often each of them ran.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)


@contextmanager
def following(model: nn.Module) -> Iterator[Followed]:
    """Follows the forward pass that is made inside."""
    followed, handles = Followed(), []
    # Outputs of convolutions by their id: the convolution's name, the output, and the output's version. Holding the
    # output keeps its id from being given to another tensor. A newer version shows an operation in place in between.
    made_by: dict[int, tuple[str, Tensor, int]] = {}

    def after(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            followed.runs[name] += 1
            if isinstance(output, Tensor):
                made_by[id(output)] = name, output, output._version

        return hook

    def before(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            followed.runs[name] += 1
            made = made_by.get(id(inputs[0])) if inputs else None
            if made is not None and made[2] == inputs[0]._version:
                followed.pairs.append((made[0], name))

        return hook

    for name, module in model.named_modules():
        # A weight that is no parameter, or that a hook makes anew before each pass, cannot be replaced.
        if isinstance(module, nn.Conv2d) and "weight" in module._parameters and not module._forward_pre_hooks:
            handles.append(module.register_forward_hook(after(name)))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before(name)))
    try:
        yield followed
    finally:
        for handle in handles:
            handle.remove()


def foldable(model: nn.Module, followed: Followed, layers: Collection[str]) -> list[tuple[str, str]]:
    """The pairs that can be folded.

    Both modules must run once, the convolution must feed one normalisation only, and no other module may share their
    parameters. The activation between them must not be tapped.

    layers: the names of the tapped layers.
    """
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    times = Counter(convolution for convolution, _ in followed.pairs)
    tapped = {(layer.module, layer.point == "input") for layer in map(Layer.parse, layers)}

    def alone(convolution: str, normalisation: str) -> bool:
        between = (convolution, False) in tapped or (normalisation, True) in tapped
        parameters = [*model.get_submodule(convolution).parameters(), *model.get_submodule(normalisation).parameters()]
        once = followed.runs[convolution] == followed.runs[normalisation] == times[convolution] == 1
        return once and not between and all(uses[id(parameter)] == 1 for parameter in parameters)

    return [pair for pair in followed.pairs if alone(*pair)]


class Fold:
    """A batch normalisation that its convolution does, and the way back.

    convolution, normalisation: the names of the two modules.
    """

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
        # The identity has the same name, so that a tap there still records the same activation.
        setattr(self._parent, self._name, nn.Identity().eval())

    def undo(self) -> None:
        """Gives the model its batch normalisation back."""
        self._conv.weight, self._conv.bias = self._before
        setattr(self._parent, self._name, self._norm)
