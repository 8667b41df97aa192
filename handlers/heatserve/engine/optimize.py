"""Optimisation: a network becomes faster for predictions and explanations alike, and computes the same.

Convolutions take over batch normalisations and paddings. Then they work on memory in the order NHWC (`channels_last`),
for which their kernels are fastest. Each change is proved on an example, and undone if the network then differs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .activation import probabilities
from .fold import Fold, foldable, following
from .padding import Padding, padded_by_a_child
from .precision import tensor_float
from .structure import same
from .taps import activations

#: The largest difference of a probability that is allowed; `/predictions` promises it.
_PROBABILITY = 1e-5


@dataclass(frozen=True)
class Optimized:
    """The changes that were made to a network.

    folded: the number of batch normalisations that convolutions took over.
    layout: the order in memory that images should have.
    padded: the number of paddings that convolutions took over.
    """

    folded: int = 0
    layout: torch.memory_format = torch.contiguous_format
    padded: int = 0


def optimize(model: nn.Module, example: Tensor, layers: Collection[str], activation: str = "softmax") -> Optimized:
    """The changes that were made to `model`, in place; there is never a second copy of it.

    Folds and a new order in memory are tried together, then each alone. The first try stays that changes no probability
    by more than 1e-5, and no score or tapped activation beyond rounding.

    model: in evaluation mode.
    example: (N, C, H, W).
    layers: the names of the tapped layers, whose activations stay the same.
    activation: of the scores; values without one differ by rounding alone.
    """
    with tensor_float(False):
        return _optimize(model, example, layers, activation)


def _optimize(model: nn.Module, example: Tensor, layers: Collection[str], activation: str) -> Optimized:
    with following(model) as followed:
        before = _outputs(model, example, layers)
    found = foldable(model, followed, layers)
    for folds, layout in (
        (True, torch.channels_last),
        (True, torch.contiguous_format),
        (False, torch.channels_last),
    ):
        normalisations = [Fold(model, *pair) for pair in found] if folds else []
        paddings = [Padding(*pair) for pair in padded_by_a_child(model)] if folds else []
        _reorder(model, layout)
        if _agrees(model, example.contiguous(memory_format=layout), layers, before, activation):
            return Optimized(len(normalisations), layout, len(paddings))
        _reorder(model, torch.contiguous_format)
        for padding in reversed(paddings):
            padding.undo()
        for normalisation in reversed(normalisations):
            normalisation.undo()
    return Optimized()


def _outputs(model: nn.Module, example: Tensor, layers: Collection[str]) -> list[Tensor]:
    """The scores, and the activations of the tapped layers."""
    scores, found = activations(model, example, layers)
    return [scores, *(found[name] for name in layers)]


def _agrees(model: nn.Module, example: Tensor, layers: Collection[str], before: list[Tensor], activation: str) -> bool:
    try:
        found = _outputs(model, example, layers)
    except Exception:  # a network may need its old layout (`view`), or a module that is gone, and raise any error
        return False
    probable = [probabilities(scores, activation) for scores in (found[0], before[0])]
    close = activation == "none" or bool((probable[0] - probable[1]).abs().max() <= _PROBABILITY)
    return close and all(same(one, other) for one, other in zip(found, before))


def _reorder(model: nn.Module, layout: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
