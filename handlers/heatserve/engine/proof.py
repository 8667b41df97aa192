"""What is proved of a network at load, so that no request finds it out; and how many noisy copies it takes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import UnsuitableModel
from .query import Query
from .recorded import PRECISIONS
from .steps import finish
from .structure import same

if TYPE_CHECKING:
    from .explainer import Explainer


def prove(explainer: Explainer, example: Tensor) -> None:
    """Every tapped layer carries a gradient to the score, changes no score, and the closed form agrees."""
    plain, _ = finish(explainer.passes(example.clone(), [[]], None))
    for layer in explainer.layers:
        # Several classes: the map of one may be empty.
        classes = sorted({0, explainer.classes // 2, explainer.classes - 1})
        queries = [[Query("gradcam", target=target, layer=layer) for target in classes]]
        try:
            logits, [by_autograd] = finish(explainer.passes(example.clone(), queries, None))
        except (RuntimeError, IndexError, KeyError) as error:
            raise UnsuitableModel(
                f"layer {layer!r} cannot be explained: its activation must be a tensor (N, K, h, w) "
                f"that the class scores depend on ({type(error).__name__})"
            ) from error
        if not torch.allclose(logits, plain, rtol=1e-4, atol=1e-4):
            raise UnsuitableModel(f"layer {layer!r}: recording it changes the prediction; name another one")
        if by_autograd[0].values.ndim != 2:
            raise UnsuitableModel(f"layer {layer!r}: its activation is not of shape (N, K, h, w)")
        if explainer.head is not None and explainer.head.layer == layer:
            _, [in_closed_form] = finish(explainer.passes(example.clone(), queries, explainer.head))
            if not all(same(one.values, other.values) for one, other in zip(by_autograd, in_closed_form)):
                raise UnsuitableModel(f"layer {layer!r}: the closed-form gradient differs from autograd's")
    if explainer.precision != "float32":
        _prove_precision(explainer, example)


def _prove_precision(explainer: Explainer, example: Tensor) -> None:
    """The network runs in fewer bits, and its gradient does not overflow in them."""
    precision = PRECISIONS[explainer.precision]
    try:
        _, [[found]] = finish(explainer.passes(example, [[Query("gradient", target=0)]], None, precision))
    except RuntimeError as error:
        raise UnsuitableModel(
            f"the network does not run in precision {explainer.precision} ({type(error).__name__}); use float32"
        ) from error
    if not bool(torch.isfinite(found.values).all()):
        raise UnsuitableModel(f"gradients of this network overflow in {explainer.precision}; use bfloat16 or float32")


def suitable_chunk(explainer: Explainer, example: Tensor) -> int:
    """On a GPU what a quarter of the free memory holds, 64 at most. On a CPU 4: larger ones gain little, and need
    memory in proportion (docs/performance.md)."""
    if explainer.device.type != "cuda":
        return 4
    torch.cuda.synchronize(explainer.device)
    before = torch.cuda.memory_allocated(explainer.device)
    torch.cuda.reset_peak_memory_stats(explainer.device)
    explainer.run(example, [[Query("gradient", target=0)]])
    row = max(1, torch.cuda.max_memory_allocated(explainer.device) - before)
    free, _ = torch.cuda.mem_get_info(explainer.device)
    return int(min(64, max(1, free // 4 // row)))
