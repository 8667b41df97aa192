"""Optimisation: a network becomes faster for predictions and explanations alike, and computes the same.

Convolutions take over batch normalisations and paddings. Then they work on memory in the order NHWC (`channels_last`),
for which their kernels are fastest. On a CPU their weights are then packed once (`engine.packing`). Each change is
proved on an example, and undone if the network then differs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Union

import torch
from torch import Tensor, nn

from .activation import probabilities
from .fold import Fold, foldable, following
from .packed_layer import Packing
from .packing import packings
from .padding import Padding, padded_by_a_child
from .precision import PRECISIONS, tensor_float
from .structure import same
from .taps import Taps, activations

#: The largest difference of a probability that is allowed; `/predictions` promises it.
_PROBABILITY = 1e-5
#: The largest relative L2 difference of a gradient. Each convolution's own is compared to rounding; through a whole
#: network rounding turns single ReLUs over, and the same gradient in float32 and float64 differs by some thousandths.
_GRADIENT = 0.05

#: What is done to make a network faster: folds, a new order in memory and one packed weight a convolution; four packed
#: weights a convolution; folds and order alone; nothing.
OPTIMIZE = (True, "packed", "folded", False)
#: A member of OPTIMIZE.
Optimize = Union[bool, str]


@dataclass(frozen=True)
class Optimized:
    """The changes that were made to a network.

    folded: the number of batch normalisations that convolutions took over.
    layout: the order in memory that images should have.
    padded: the number of paddings that convolutions took over.
    packings: of convolutions whose weights are packed.
    """

    folded: int = 0
    layout: torch.memory_format = torch.contiguous_format
    padded: int = 0
    packings: tuple[Packing, ...] = field(default=(), compare=False, repr=False)

    @property
    def packed(self) -> int:
        """The number of convolutions whose weights are packed."""
        return len(self.packings)

    def unpack(self) -> None:
        """Gives the convolutions their own weights back, and frees the packed ones; the other changes stay."""
        for packing in self.packings:
            packing.undo()


def optimize(
    model: nn.Module,
    example: Tensor,
    layers: Collection[str],
    activation: str = "softmax",
    how: Optimize = True,
    precision: str = "float32",
) -> Optimized:
    """The changes that were made to `model`, in place; there is never a second copy of it.

    Folds and a new order in memory are tried together, then each alone. The first try stays that changes no probability
    by more than 1e-5, and no score or tapped activation beyond rounding.

    model: in evaluation mode.
    example: (N, C, H, W).
    layers: the names of the tapped layers, whose activations stay the same.
    activation: of the scores; values without one differ by rounding alone.
    how: a member of OPTIMIZE but False. Convolutions are packed in networks in float32 on a CPU: with True in no more
        than the memory that the weights take, with "packed" in three times as much.
    precision: of draws, a name in PRECISIONS. Where it has fewer bits, "packed" keeps a weight in it too.

    Raises ValueError for another value of `how`.
    """
    if how not in OPTIMIZE:
        raise ValueError(f"optimize is {how!r}; allowed: True, 'packed', 'folded', False")
    with tensor_float(False):
        found, before = _optimize(model, example, layers, activation)
        if how in (True, "packed") and (example.device.type, example.dtype) == ("cpu", torch.float32):
            laid, everything = example.contiguous(memory_format=found.layout), how == "packed"
            rounded = PRECISIONS[precision] if everything else torch.float32
            made = _pack(model, laid, layers, activation, found.layout, rounded, everything, before)
            return replace(found, packings=made)
        return found


def _optimize(
    model: nn.Module, example: Tensor, layers: Collection[str], activation: str
) -> tuple[Optimized, list[Tensor]]:
    """The folds and the order in memory that stay, and the outputs of the network before them."""
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
            return Optimized(len(normalisations), layout, len(paddings)), before
        _reorder(model, torch.contiguous_format)
        for padding in reversed(paddings):
            padding.undo()
        for normalisation in reversed(normalisations):
            normalisation.undo()
    return Optimized(), before


def _outputs(model: nn.Module, example: Tensor, layers: Collection[str]) -> list[Tensor]:
    """The scores, and the activations of the tapped layers."""
    scores, found = activations(model, example, layers)
    return [scores, *(found[name] for name in layers)]


def _agrees(model: nn.Module, example: Tensor, layers: Collection[str], before: list[Tensor], activation: str) -> bool:
    try:
        found = _outputs(model, example, layers)
    except Exception:  # a network may need its old layout (`view`), or a module that is gone, and raise any error
        return False
    return _alike(found, before, activation)


def _alike(found: list[Tensor], before: list[Tensor], activation: str) -> bool:
    probable = [probabilities(scores, activation) for scores in (found[0], before[0])]
    close = activation == "none" or bool((probable[0] - probable[1]).abs().max() <= _PROBABILITY)
    return close and all(same(one, other) for one, other in zip(found, before))


def _reorder(model: nn.Module, layout: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 4 and parameter.layout == torch.strided:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _pack(
    model: nn.Module,
    example: Tensor,
    layers: Collection[str],
    activation: str,
    order: torch.memory_format,
    rounded: torch.dtype,
    everything: bool,
    before: list[Tensor] | None,
) -> tuple[Packing, ...]:
    """The packings that stay: all that are right each for itself, or none where the whole network then differs.

    Scores and tapped activations are compared on one image and on several, gradients on one, in whose pass with a graph
    the scores are compared once more.

    before: the scores and tapped activations of the example.
    """
    image = example[:1].contiguous(memory_format=order)
    alone, gradients = _one_pass(model, image, layers)
    if len(example) == 1:
        example = torch.cat([example, example.flip(3)]).contiguous(memory_format=order)
        before = _tried(model, example, layers)
    made = packings(model, example, layers, order, rounded, everything)
    batches = [(example, before), (image, alone)]
    if made and all(known is None or _agrees(model, one, layers, known, activation) for one, known in batches):
        found, others = _one_pass(model, image, layers)
        right = alone is None or (found is not None and _alike(found, alone, activation))
        if right and _near(others, gradients):
            return tuple(made)
    for packing in made:
        packing.undo()
    return ()


def _tried(model: nn.Module, images: Tensor, layers: Collection[str]) -> list[Tensor] | None:
    """The outputs for a batch; None where the network does not take one of this size."""
    try:
        return _outputs(model, images, layers)
    except RuntimeError:
        return None


def _one_pass(
    model: nn.Module, image: Tensor, layers: Collection[str]
) -> tuple[list[Tensor] | None, list[Tensor] | None]:
    """The outputs, and the gradients of the scores' weighted sum in the tapped layers and the input before them.

    Each is None where the network has none.
    """
    leaf, taps = image.detach().requires_grad_(), Taps(model, layers)
    try:
        with taps.recording(layers, graph=True) as recording, torch.enable_grad():
            scores = model(leaf.clone(memory_format=torch.preserve_format))
            score = (scores * torch.linspace(1, 2, scores.shape[1])).sum()
            inside = [recording.activations[name] for name in layers]
            found = torch.autograd.grad(score, [leaf, *inside], allow_unused=True)
    except Exception:  # a network or a private operator may raise any error
        return _tried(model, image, layers), None
    finally:
        taps.remove()
    outputs = [one.detach() for one in (scores, *inside)]
    return outputs, [gradient for gradient in found if gradient is not None]


def _near(found: list[Tensor] | None, known: list[Tensor] | None) -> bool:
    if found is None or known is None:
        return found is known
    near = (float((one - other).norm()) <= _GRADIENT * float(other.norm()) for one, other in zip(found, known))
    return len(found) == len(known) and all(near)
