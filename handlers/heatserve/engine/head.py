"""The linear head: global average pooling and one linear layer, of which the gradient has a closed form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

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


def linear_head(model: nn.Module, structure: Structure) -> LinearHead | None:
    """The linear head that the structure names; None where the network has another kind of head."""
    found = structure.head
    if found is None:
        return None
    classifier = model.get_submodule(found.classifier)
    if not isinstance(classifier, nn.Linear):
        return None
    return LinearHead(found.layer, classifier.weight.detach())
