"""The order of classes: one rule for the classes that are explained and for those that an answer lists."""

from __future__ import annotations

from torch import Tensor


def ranking(scores: Tensor) -> Tensor:
    """Class indices by falling score, equal scores by index; (classes) or (N, classes).

    Probabilities would say the same until a softmax saturates: then many of them are 0, and their order is chance.
    """
    return scores.argsort(dim=-1, descending=True, stable=True)
