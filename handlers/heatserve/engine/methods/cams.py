"""Class activation maps: the activations of an inner layer, each channel weighted for the explained class."""

from __future__ import annotations

from torch import Tensor

from ..method import LayerSignal, Method


def cam(signal: LayerSignal) -> Tensor:
    """`sum_k w_k^c A_k`, signed, (N, h, w). Zhou et al. 2016, equation 2."""
    assert signal.class_weights is not None  # a network without them is refused at load
    return (signal.class_weights[:, :, None, None] * signal.activations).sum(1)


def gradcam(signal: LayerSignal) -> Tensor:
    """`ReLU(sum_k alpha_k A_k)`, `alpha_k = mean_ij dy_c/dA_k,ij`, (N, h, w). Selvaraju et al. 2017, equations 1, 2."""
    alpha = signal.gradients.mean((2, 3), keepdim=True)
    return (alpha * signal.activations).sum(1).relu()


def as_it_is(attribution: Tensor) -> Tensor:
    """(h, w) -> (h, w)."""
    return attribution


CAMS = (
    Method(
        "gradcam",
        "ReLU of the activations weighted by their mean gradient; any differentiable head",
        "Selvaraju et al. 2017",
        "layer",
        gradcam,
        as_it_is,
        display="maximum",
    ),
    Method(
        "cam",
        "activations weighted by the class's weights in the one linear layer behind global average pooling, signed",
        "Zhou et al. 2016",
        "layer",
        cam,
        as_it_is,
        display="maximum",
        needs_linear_head=True,
    ),
)
