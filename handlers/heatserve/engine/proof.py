"""What is proved of a network at load, so that no request finds it out; and how many noisy copies it takes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import UnsuitableModel
from .query import Query
from .steps import finish
from .structure import same

#: Of two, of what a score is multiplied by in float16: the score's own gradient must fit.
_LARGEST_POWER, _SMALLEST_POWER = 15, -16
_HEADROOM = 3
#: Of the gradient of each class, L2. Rectifiers that flip make a tenth or two.
_FAR = 0.5
#: Of the gradient of each class, L2, at places at which float16 has 0. Rectifiers that flip leave next to none.
_LOST = 0.01

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
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
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
    """The network runs in fewer bits, and its gradient neither overflows nor vanishes in them.

    float16 holds numbers from 6e-8 to 65504: the score is scaled, for each network by the power of two that suits it.
    """
    exact = _gradients(explainer, example, None)
    powers = range(_LARGEST_POWER, _SMALLEST_POWER, -2) if explainer.precision == "float16" else (0,)
    for power in powers:
        explainer.scale = 2.0**power
        found = _gradients(explainer, example, explainer.precision)
        if bool(torch.isfinite(found).all()):
            break
    else:
        raise UnsuitableModel(f"gradients of this network overflow in {explainer.precision}; use bfloat16 or float32")
    if explainer.precision != "float16":
        return
    # Other pictures have larger gradients than the example.
    explainer.scale /= 2.0**_HEADROOM
    found = _gradients(explainer, example, explainer.precision)
    for ours, theirs in zip(found, exact):
        whole = float(theirs.norm())
        if float((ours - theirs).norm()) > _FAR * whole or float(theirs[ours == 0].norm()) > _LOST * whole:
            raise UnsuitableModel(
                "gradients of this network are lost in float16, whose smallest number is 6e-8: for one class they "
                f"differ from float32's by more than {_FAR:.0%}, or more than {_LOST:.0%} of them became 0; use "
                "bfloat16 or float32"
            )


def _gradients(explainer: Explainer, example: Tensor, precision: str | None) -> Tensor:
    """In the input, of several classes' scores, (classes, C, H, W)."""
    classes = sorted({0, explainer.classes // 2, explainer.classes - 1})
    queries = [[Query("gradient", target=target) for target in classes]]
    try:
        _, [found] = finish(explainer.passes(example, queries, None, precision))
    except RuntimeError as error:
        raise UnsuitableModel(
            f"the network does not run in precision {precision} ({type(error).__name__}); use float32"
        ) from error
    return torch.stack([answer.values for answer in found]).double()


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
