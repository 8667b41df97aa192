"""The layers that maps may come from, read off the calls of a forward pass: a convolutional trunk, or late layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .calls import Call

#: The number of late layers of each sort.
_MOST = 6


def trunk(calls: list[Call], once: list[Call]) -> str | None:
    """The last convolutional module, if only pooling, elementwise modules and vectors follow it; else None."""
    trunks = [call for call in once if call.spatial and convolves(call.module)]
    if not trunks or not any(isinstance(call.module, nn.Linear) for call in calls):
        return None
    last = trunks[-1]
    poolings = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.MaxPool2d)
    elementwise = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Dropout, nn.Dropout2d, nn.Identity)
    for call in calls[calls.index(last) + 1 :]:
        inside = bool(call.name) and last.name.startswith(f"{call.name}.")
        plain = isinstance(call.module, (*poolings, *elementwise)) or call.positions == 1 or not call.name
        if not (inside or plain):
            return None
    return last.name


def convolves(module: nn.Module) -> bool:
    """Whether a module holds a convolution."""
    return any(isinstance(part, nn.modules.conv._ConvNd) for part in module.modules())


def first_norms(once: Sequence[Call]) -> list[str]:
    """The normalisations that open a residual block, the last one first: pytorch-grad-cam's choice for a ViT."""
    return [call.name for call in reversed(once) if call.opens and call.positions > 1 and _normalises(call.module)]


def late_layers(once: Sequence[Call], classes: int) -> list[str]:
    """The layers that maps may come from, the preferred one first.

    Those are first norms where the network ends in tokens, else outputs of blocks and norms. A map of class scores is
    none of them: it is the answer itself.
    """
    places = _places(once)
    outputs = [call for call in reversed(places) if not (call.spatial and call.shape[1] == classes)]
    new = [call.name for before, call in zip([None, *outputs], outputs) if before is None or not _alike(before, call)]
    # The last convolution of a transformer is its patch embedding, which comes early.
    second_half = {call.name for call in once[len(once) // 2 :]}
    convolutions = [c.name for c in outputs if c.spatial and convolves(c.module) and c.name in second_half]
    norms, found = first_norms(once)[:_MOST], new[:_MOST]
    ordered = norms + found if ends_in_tokens(once) else found + norms
    # Behind the last attention only the class token is read in some networks: earlier norms have a gradient.
    further = [c.name for c in outputs if _normalises(c.module) and c.name in second_half and c.name not in found]
    return list(dict.fromkeys(ordered + further[:_MOST] + convolutions[:1]))


def _alike(one: Call, other: Call) -> bool:
    """Whether two modules give the same, as a container and its last module do."""
    if one.shape != other.shape:
        return False
    ours, theirs = ((call.last_mean,) if len(call.shape) == 4 else call.token_means[:1] for call in (one, other))
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(ours, theirs))


def ends_in_tokens(once: Sequence[Call]) -> bool:
    """Whether the last layer with places gives (N, tokens, K)."""
    places = _places(once)
    return bool(places) and len(places[-1].shape) == 3


def _places(once: Sequence[Call]) -> list[Call]:
    return [call for call in once if call.positions > 1 and len(call.shape) in (3, 4) and _is_part(call.module)]


def _normalises(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _is_part(module: nn.Module) -> bool:
    """Whether a module is a convolution, a normalisation, or one with modules in it."""
    return convolves(module) or _normalises(module) or any(True for _ in module.children())
