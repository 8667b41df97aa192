"""The ranking of classes: one rule, for the classes that are explained and for those that an answer lists."""

from __future__ import annotations

import torch
from torch import Tensor


def ranking(scores: Tensor) -> Tensor:
    """The class indices by falling score, equal scores by index; (classes) or (N, classes).

    Probabilities have the same order until a softmax saturates. Then many of them are 0, and their order is chance.
    """
    return scores.argsort(dim=-1, descending=True, stable=True)


def nearest(scores: Tensor, targets: Tensor, count: int) -> Tensor:
    """The `count` classes whose scores are nearest to each target's, above or below it, (n, count).

    Finer-CAM (Zhang et al. 2025) compares with these. The target itself comes last, also behind a class of score -inf.
    """
    away = (scores - scores.gather(1, targets[:, None])).abs().scatter(1, targets[:, None], torch.nan)
    return away.argsort(dim=1, stable=True)[:, :count]
