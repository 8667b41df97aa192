"""The ranking of classes: one rule, for the classes that are explained and for those that an answer lists."""

from __future__ import annotations

from torch import Tensor


def ranking(scores: Tensor) -> Tensor:
    """The class indices by falling score, equal scores by index; (classes) or (N, classes).

    Probabilities have the same order until a softmax saturates. Then many of them are 0, and their order is chance.
    """
    return scores.argsort(dim=-1, descending=True, stable=True)
