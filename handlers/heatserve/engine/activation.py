"""The activation: the function that makes answers of a network's scores."""

from __future__ import annotations

import torch
from torch import Tensor

#: The activations by name: "softmax" for classes that exclude each other, "sigmoid" for labels of which several may be
#: present, "none" for values that are answers as they are.
ACTIVATIONS = ("softmax", "sigmoid", "none")


def check_activation(activation: str) -> None:
    """Raises ValueError for a name that is not in ACTIVATIONS."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; allowed: {', '.join(ACTIVATIONS)}")


def probabilities(logits: Tensor, activation: str) -> Tensor:
    """The answers, (N, classes): the softmax over the classes, the sigmoid of each score, or the scores themselves.

    logits: (N, classes).
    activation: a name in ACTIVATIONS.
    """
    check_activation(activation)
    if activation == "softmax":
        return logits.softmax(1)
    return logits.sigmoid() if activation == "sigmoid" else logits


def two_classes(score: Tensor) -> Tensor:
    """The scores of a label's absence and of its presence, (N, 2), of which the sigmoids sum to 1.

    score: of the presence, (N, 1).
    """
    return torch.cat([-score, score], 1)
