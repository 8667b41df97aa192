"""Warming: one pass of each fixed size at load, so that no request waits for the preparations of a library."""

from __future__ import annotations

from torch import Tensor

from .explainer import Explainer
from .query import Query
from .steps import finish


def warm(explainer: Explainer, image: Tensor) -> list[int]:
    """Does one pass of draws of each fixed size up to the chunk, and gives the sizes. A CPU has none.

    image: (1, C, H, W).
    """
    if "gradient" not in explainer.methods():
        return []
    done = []
    for size in explainer.sizes:
        if size > explainer.chunk:
            break  # the chunk shrinks where the device has too little memory
        queries = [[Query("gradient", target=0)]] * size
        finish(explainer.steps(image.expand(size, -1, -1, -1).clone(), queries, explainer.precision))
        done.append(size)
    explainer.settle()
    return done
