"""The activation: the function that makes a model's answers of its scores."""

from __future__ import annotations

from torch import Tensor

#: The names of the activations.
ACTIVATIONS = ("softmax", "sigmoid", "none")


def activated(scores: Tensor, activation: str) -> Tensor:
    """The answers that scores stand for, (N, classes).

    softmax: probabilities of classes that exclude each other.
    sigmoid: a probability of each class by itself.
    none: the scores themselves.
    """
    if activation == "softmax":
        return scores.softmax(1)
    return scores.sigmoid() if activation == "sigmoid" else scores
