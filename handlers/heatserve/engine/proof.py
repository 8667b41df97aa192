"""The proof of a network: it is made at load, so that no request is the first to meet the network's limits."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import UnsuitableModel
from .network import Network
from .query import Query
from .steps import finish
from .structure import same

#: The scale of a score in float16 is a power of two between these; the score's own gradient must fit too.
_LARGEST_POWER, _SMALLEST_POWER = 15, -16
#: Powers of two that are left free for other pictures, whose gradients may be larger than the example's.
_HEADROOM = 3
#: The largest relative L2 error of one class's gradient in float16. Rectifiers that flip make a tenth or two.
_FAR = 0.5
#: The largest share of one class's gradient, L2, that may become 0 in float16. Rectifiers that flip leave next to none.
_LOST = 0.01


def prove(network: Network, example: Tensor) -> None:
    """Proves that every tapped layer can be explained, and finds the network's scale in float16.

    A layer must carry a gradient to the score. Recording it must not change the score. Where the network has a linear
    head, the closed form of the gradient must be autograd's.

    example: (N, C, H, W).

    Raises UnsuitableModel with the reason.
    """
    image, layers = example[:1], network.choice.layers
    plain, _ = finish(network.passes(image.clone(), [[]], closed_form=False))
    for layer in layers:
        _prove_layer(network, image, layer, plain)
    if network.precision != "float32":
        _prove_precision(network, image)


def _prove_layer(network: Network, image: Tensor, layer: str, plain: Tensor) -> None:
    queries = [[Query("gradcam", target=target, layer=layer) for target in _classes(network)]]
    try:
        logits, [by_autograd] = finish(network.passes(image.clone(), queries, closed_form=False))
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        raise refuse_unreachable(layer, type(error).__name__) from error
    if not torch.allclose(logits, plain, rtol=1e-4, atol=1e-4):
        raise UnsuitableModel(f"layer {layer!r}: recording it changes the prediction; name another one")
    if by_autograd[0].values.ndim != 2:
        raise UnsuitableModel(f"layer {layer!r}: its activation is not of shape (N, K, h, w)")
    if network.head is not None and network.head.layer == layer:
        _, [in_closed_form] = finish(network.passes(image.clone(), queries))
        if not all(same(one.values, other.values) for one, other in zip(by_autograd, in_closed_form)):
            raise UnsuitableModel(f"layer {layer!r}: the closed-form gradient differs from autograd's")


def refuse_unreachable(layer: str, reason: str) -> UnsuitableModel:
    """The error for a layer whose recording leads to no gradient. reason: a few words."""
    return UnsuitableModel(
        f"layer {layer!r} cannot be explained: its activation must be a tensor (N, K, h, w) "
        f"that the class scores depend on ({reason})"
    )


def _classes(network: Network) -> list[int]:
    """Three classes of the network: the map of a single one may be empty."""
    return sorted({0, network.classes // 2, network.classes - 1})


def _prove_precision(network: Network, image: Tensor) -> None:
    """Proves that the network runs in fewer bits, and that its gradient neither overflows nor vanishes in them.

    float16 holds numbers from 6e-8 to 65504. The score is therefore scaled, by the power of two that suits the network.
    """
    exact = _gradients(network, image, None)
    powers = range(_LARGEST_POWER, _SMALLEST_POWER, -2) if network.precision == "float16" else (0,)
    for power in powers:
        network.scale = 2.0**power
        found = _gradients(network, image, network.precision)
        if bool(torch.isfinite(found).all()):
            break
    else:
        raise UnsuitableModel(f"gradients of this network overflow in {network.precision}; use bfloat16 or float32")
    if network.precision != "float16":
        return
    network.scale /= 2.0**_HEADROOM
    found = _gradients(network, image, network.precision)
    for ours, theirs in zip(found, exact):
        whole = float(theirs.norm())
        if float((ours - theirs).norm()) > _FAR * whole or float(theirs[ours == 0].norm()) > _LOST * whole:
            raise UnsuitableModel(
                "gradients of this network are lost in float16, whose smallest number is 6e-8: for one class they "
                f"differ from float32's by more than {_FAR:.0%}, or more than {_LOST:.0%} of them became 0; use "
                "bfloat16 or float32"
            )


def _gradients(network: Network, image: Tensor, precision: str | None) -> Tensor:
    """The gradients of several classes' scores in the input, (classes, C, H, W)."""
    queries = [[Query("gradient", target=target) for target in _classes(network)]]
    try:
        _, [found] = finish(network.passes(image, queries, precision, closed_form=False))
    except RuntimeError as error:
        raise UnsuitableModel(
            f"the network does not run in precision {precision} ({type(error).__name__}); use float32"
        ) from error
    return torch.stack([answer.values for answer in found]).double()


def suitable_chunk(network: Network, image: Tensor) -> int:
    """The number of draws that one pass should hold.

    On a GPU it is the number that fills a quarter of the free memory, at most 64. On a CPU it is 4: larger passes gain
    little there, and need memory in proportion (docs/performance.md).

    image: (1, C, H, W).
    """
    if network.device.type != "cuda":
        return 4
    torch.cuda.synchronize(network.device)
    before = torch.cuda.memory_allocated(network.device)
    torch.cuda.reset_peak_memory_stats(network.device)
    finish(network.passes(image, [[Query("gradient", target=0)]]))
    row = max(1, torch.cuda.max_memory_allocated(network.device) - before)
    free, _ = torch.cuda.mem_get_info(network.device)
    return int(min(64, max(1, free // 4 // row)))
