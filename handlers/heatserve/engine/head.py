"""The linear head: global average pooling and one linear layer, of which the gradient has a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layout import Layout
from .structure import Structure


@dataclass(frozen=True)
class LinearHead:
    """A head whose score is `weight[c] @ mean(activation) + bias[c]`, so that its gradient needs no backward pass.

    layer: the name of the layer that is pooled.
    weight: (classes, K).
    prefix: the number of prefix tokens that the mean counts beside the places.
    """

    layer: str
    weight: Tensor
    prefix: int = 0


def linear_head(model: nn.Module, structure: Structure, layouts: Mapping[str, Layout]) -> LinearHead | None:
    """The linear head that the structure names; None where the network has another kind of head.

    layouts: of the tapped layers; the mean must have read the pooled one in its layout.
    """
    found = structure.head
    if found is None:
        return None
    classifier = model.get_submodule(found.classifier)
    if not isinstance(classifier, nn.Linear):
        return None
    layout = layouts.get(found.layer)
    prefix = 0
    if layout is not None:
        if layout.kind != found.pooled or found.skipped not in (0, layout.prefix):
            return None
        prefix = layout.prefix - found.skipped
    weight = classifier.weight.detach()
    # One score stands for a label's absence and its presence.
    absence_too = len(weight) == 1 and structure.classes == 2
    return LinearHead(found.layer, torch.cat([-weight, weight]) if absence_too else weight, prefix)
