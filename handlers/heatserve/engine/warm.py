"""Warming: one pass of each fixed size at load, so that no request waits for the preparations of a library."""

from __future__ import annotations

from torch import Tensor

from .explainer import Explainer
from .noise import noise_generator
from .query import Query
from .steps import finish


def warm(explainer: Explainer, image: Tensor, capture: bool = True) -> list[int]:
    """Does one pass of draws of each fixed size up to the chunk, and gives the sizes. A CPU has none.

    image: (1, C, H, W).
    capture: whether each pass is captured too, where the device can.
    """
    if "gradient" not in explainer.methods():
        return []
    done = []
    for size in explainer.sizes:
        if size > explainer.chunk:
            break  # the chunk shrinks where the device has too little memory
        queries = [[Query("gradient", target=0)]] * size
        fitted = explainer.fallbacks
        finish(explainer.steps(image.expand(size, -1, -1, -1).clone(), queries, explainer.precision))
        if explainer.fallbacks == fitted:
            if capture:
                explainer.captured.capture(image, size, explainer.precision)
            done.append(size)
    noise_generator(image.device)
    explainer.settle()
    return done
