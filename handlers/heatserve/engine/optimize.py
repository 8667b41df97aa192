"""What makes a network faster for predictions and explanations alike, without changing what it computes.

Batch normalisation in evaluation mode is a fixed scale and shift for each channel: it is folded into the convolution
before it (Jacob et al. 2018, section 3.2). Convolutions then work on memory in the order NHWC (`channels_last`), which
is the one that their kernels like. What is done is proved on an example, and undone where it makes a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .structure import same
from .taps import Layer, Taps

#: Of a probability: what `/predictions` may differ by.
_PROBABILITY = 1e-5


@dataclass(frozen=True)
class Optimized:
    """What was done. folded: how many batch normalisations are gone. layout: the order in memory that images should
    have."""

    folded: int = 0
    layout: torch.memory_format = torch.contiguous_format


def optimize(model: nn.Module, example: Tensor, layers: Collection[str]) -> Optimized:
    """Folds and reorders `model` in place: it never becomes a second copy. It must be in evaluation mode.

    example: (N, C, H, W). layers: the tapped ones, whose activations stay what they were. Both, or one of the two, or
    neither: the first that changes no probability by more than 1e-5, and no score or tapped activation beyond rounding.
    """
    with _no_tensor_float():
        return _optimize(model, example, layers)


def _optimize(model: nn.Module, example: Tensor, layers: Collection[str]) -> Optimized:
    before = _seen(model, example, layers)
    found = list(_pairs(model, example, layers))
    for pairs, layout in (
        (found, torch.channels_last),
        (found, torch.contiguous_format),
        ([], torch.channels_last),
    ):
        folds = [_Fold(model, *pair) for pair in pairs]
        _reorder(model, layout)
        if _agrees(model, example.contiguous(memory_format=layout), layers, before):
            return Optimized(len(folds), layout)
        _reorder(model, torch.contiguous_format)
        for fold in reversed(folds):
            fold.undo()
    return Optimized()


@contextmanager
def _no_tensor_float() -> Iterator[None]:
    """cuDNN's convolutions round to 10 bits by default: more than the proof would let pass."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _seen(model: nn.Module, example: Tensor, layers: Collection[str]) -> list[Tensor]:
    """Scores, and the activations of the tapped layers."""
    taps = Taps(model, layers)
    try:
        with taps.recording(layers, graph=False) as recording, torch.no_grad():
            scores: Tensor = model(example.clone(memory_format=torch.preserve_format))
    finally:
        taps.remove()
    return [scores, *(recording.activations[name] for name in layers)]


def _agrees(model: nn.Module, example: Tensor, layers: Collection[str], before: list[Tensor]) -> bool:
    try:
        found = _seen(model, example, layers)
    except RuntimeError:  # a network that counts on its layout (`view`) says so
        return False
    probable = [scores.softmax(1) for scores in (found[0], before[0])]
    close = bool((probable[0] - probable[1]).abs().max() <= _PROBABILITY)
    return close and all(same(one, other) for one, other in zip(found, before))


def _reorder(model: nn.Module, layout: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _pairs(model: nn.Module, example: Tensor, layers: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names of a convolution and the batch normalisation that its output goes into, each of which runs once.

    Not where what lies between them is tapped, or where the weights are shared or computed.
    """
    made_by: dict[int, str] = {}
    kept: list[Tensor] = []
    found: list[tuple[str, str]] = []
    runs: Counter[str] = Counter()
    handles = []

    def after(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            runs[name] += 1
            if isinstance(output, Tensor):
                made_by[id(output)] = name
                kept.append(output)  # its identity stays taken

        return hook

    def before(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            runs[name] += 1
            if inputs and id(inputs[0]) in made_by:
                found.append((made_by[id(inputs[0])], name))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and not hasattr(module, "parametrizations"):
            handles.append(module.register_forward_hook(after(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before(name)))
    try:
        with torch.no_grad():
            model(example.clone())
    finally:
        for handle in handles:
            handle.remove()
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    tapped = {(layer.module, layer.point == "input") for layer in map(Layer.parse, layers)}
    for convolution, normalisation in found:
        parameters = [*model.get_submodule(convolution).parameters(), *model.get_submodule(normalisation).parameters()]
        between = (convolution, False) in tapped or (normalisation, True) in tapped
        if runs[convolution] == runs[normalisation] == 1 and not between and all(uses[id(p)] == 1 for p in parameters):
            yield convolution, normalisation


class _Fold:
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
