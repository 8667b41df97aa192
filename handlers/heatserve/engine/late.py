"""The late layers of a network: the layer that maps come from by default where the end of the network is no plain head.

The calls are walked backwards from the end. The choice falls on the last layer whose places are shown by changed
pictures and whose gradient is not 0 at all of them. Where only the class token is read at the end, the last block's
output has no gradient at other tokens; its first normalisation has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel
from .layout import Layout
from .planted import prove_layouts, shown_layouts
from .structure import Structure
from .taps import Taps

#: The largest number of first tokens that are no places, for networks with many more tokens.
_PREFIX = 8
#: The number of layers that are tried together.
_TOGETHER = 2


def automatic(model: nn.Module, example: Tensor, structure: Structure) -> dict[str, Layout]:
    """The layer that maps come from where none is named, with its layout; empty where no layer is shown to have places.

    example: (N, C, H, W).
    """
    if structure.layer is not None:
        channels_first = structure.head is None or structure.head.pooled == "nchw"
        try:
            return prove_layouts(model, example, [structure.layer], named=not channels_first)
        except UnsuitableModel:
            pass
    late = [layer for layer in structure.late if layer != structure.layer]
    for first in range(0, len(late), _TOGETHER):
        some = late[first : first + _TOGETHER]
        try:
            gradients = gradients_in(model, example[:1], some)
            gradients = {layer: gradient for layer, gradient in gradients.items() if not _of_prefix(gradient)}
            layouts = shown_layouts(model, example, list(gradients), thorough=first == 0)
        except (UnsuitableModel, RuntimeError):
            continue
        for layer in some:
            if layer in layouts and bool(layouts[layer].maps(gradients[layer]).any()):
                return {layer: layouts[layer]}
    return {}


def _of_prefix(gradient: Tensor) -> bool:
    """Whether only first tokens of (1, tokens, K), such as the class token, have a gradient: such a map is 0."""
    if gradient.ndim != 3 or gradient.shape[1] <= 2 * _PREFIX:
        return False
    return not bool(gradient[:, _PREFIX:].any())


def gradients_in(model: nn.Module, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The gradients of the scores, all weighed differently, in those layers that the scores depend on.

    A new network's last linear layer is often all 0, and lets no gradient through; its input counts as scores too.
    """
    read: list[Tensor] = []

    def before(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        read[:] = [inputs[0]] if inputs[0].ndim == 2 else read

    taps = Taps(model, layers)
    handles = [m.register_forward_pre_hook(before) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        with taps.recording(layers, graph=True) as recording, torch.enable_grad():
            scores = [model(image.clone()), *read]
    finally:
        taps.remove()
        for handle in handles:
            handle.remove()
    found = {layer: values for layer, values in recording.activations.items() if values.ndim in (3, 4)}
    total = sum((score * torch.linspace(1, 2, score.shape[1]).to(score)).sum() for score in scores)
    gradients = torch.autograd.grad([total], list(found.values()), allow_unused=True)
    return {layer: gradient for layer, gradient in zip(found, gradients) if gradient is not None}
