"""What makes a network faster for predictions and explanations alike, without changing what it computes.

Batch normalisations and paddings are folded into convolutions, which then work on memory in the order NHWC
(`channels_last`), the one that their kernels like. What is done is proved on an example, and undone where it makes a
difference.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fold import Fold, foldable, following
from .padding import Padding, padded_by_a_child
from .precision import tensor_float
from .structure import same
from .taps import activations

#: Of a probability: what `/predictions` may differ by.
_PROBABILITY = 1e-5


@dataclass(frozen=True)
class Optimized:
    """What was done. folded: how many batch normalisations are gone; padded: how many paddings. layout: the order in
    memory that images should have."""

    folded: int = 0
    layout: torch.memory_format = torch.contiguous_format
    padded: int = 0


def optimize(model: nn.Module, example: Tensor, layers: Collection[str]) -> Optimized:
    """Folds and reorders `model` in place: it never becomes a second copy. It must be in evaluation mode.

    example: (N, C, H, W). layers: the tapped ones, whose activations stay what they were. Both, or one of the two, or
    neither: the first that changes no probability by more than 1e-5, and no score or tapped activation beyond rounding.
    """
    with tensor_float(False):
        return _optimize(model, example, layers)


def _optimize(model: nn.Module, example: Tensor, layers: Collection[str]) -> Optimized:
    with following(model) as seen:
        before = _seen(model, example, layers)
    found = foldable(model, seen, layers)
    for folds, layout in (
        (True, torch.channels_last),
        (True, torch.contiguous_format),
        (False, torch.channels_last),
    ):
        normalisations = [Fold(model, *pair) for pair in found] if folds else []
        paddings = [Padding(*pair) for pair in padded_by_a_child(model)] if folds else []
        _reorder(model, layout)
        if _agrees(model, example.contiguous(memory_format=layout), layers, before):
            return Optimized(len(normalisations), layout, len(paddings))
        _reorder(model, torch.contiguous_format)
        for padding in reversed(paddings):
            padding.undo()
        for normalisation in reversed(normalisations):
            normalisation.undo()
    return Optimized()


def _seen(model: nn.Module, example: Tensor, layers: Collection[str]) -> list[Tensor]:
    """Scores, and the activations of the tapped layers."""
    scores, found = activations(model, example, layers)
    return [scores, *(found[name] for name in layers)]


def _agrees(model: nn.Module, example: Tensor, layers: Collection[str], before: list[Tensor]) -> bool:
    try:
        found = _seen(model, example, layers)
    except Exception:  # a network that counts on its layout (`view`), or on what is gone, says so in its own way
        return False
    probable = [scores.softmax(1) for scores in (found[0], before[0])]
    close = bool((probable[0] - probable[1]).abs().max() <= _PROBABILITY)
    return close and all(same(one, other) for one, other in zip(found, before))


def _reorder(model: nn.Module, layout: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
