"""The layers that a user could name, tried without tapping them for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel, is_out_of_memory
from .late import gradients_in
from .layout import Layout
from .planted import reason_against, shown_layouts
from .proof import refuse_unreachable
from .taps import activations


@dataclass(frozen=True)
class Candidate:
    """A layer that a user could name.

    shape: of its activation of one picture, without N; empty where it cannot be recorded.
    layout: the one that changed pictures show; None where they show none.
    reached: whether the scores have a gradient at some of its places. Maps made of gradients are empty otherwise.
    refused: the sentence with which the layer is refused; empty for a layer that maps may come from.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout | None
    reached: bool
    refused: str = ""


def try_candidates(model: nn.Module, example: Tensor, layers: Sequence[str]) -> list[Candidate]:
    """The layers with what a trial of them shows, in their order.

    model: frozen; gives (N, classes) scores for images (N, C, H, W).
    example: one or more such images.

    All are tried in the same passes. Where one fails, the halves are tried by themselves.
    """
    if not layers:
        return []
    try:
        return _together(model, example, layers)
    except (UnsuitableModel, RuntimeError, ValueError, IndexError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        if len(layers) == 1:
            return [Candidate(layers[0], (), None, False, str(error))]
    middle = len(layers) // 2
    return [*try_candidates(model, example, layers[:middle]), *try_candidates(model, example, layers[middle:])]


def _together(model: nn.Module, example: Tensor, layers: Sequence[str]) -> list[Candidate]:
    image = example[:1]
    with torch.no_grad():
        plain = model(image.clone())
    scores, found = activations(model, image, layers)
    if not torch.allclose(scores, plain, rtol=1e-4, atol=1e-4):
        raise UnsuitableModel(f"layer {layers[0]!r}: recording it changes the prediction; name another one")
    layouts = shown_layouts(model, example, layers, thorough=True)
    gradients = gradients_in(model, image, list(layouts))
    candidates = []
    for layer in layers:
        shape, layout = tuple(found[layer].shape[1:]), layouts.get(layer)
        if layout is None:
            candidates.append(Candidate(layer, shape, None, False, reason_against(model, example, layer)))
        elif layer not in gradients:
            candidates.append(Candidate(layer, shape, layout, False, str(refuse_unreachable(layer, "no gradient"))))
        else:
            reached = bool(layout.maps(gradients[layer]).any())
            candidates.append(Candidate(layer, shape, layout, reached))
    return candidates
