"""The methods that heatserve brings: each a function from a signal to an attribution, and a row."""

from __future__ import annotations

from torch import Tensor

from .method import InputSignal, LayerSignal, Method


def gradient(signal: InputSignal) -> Tensor:
    """`dy_c/dx`, signed, (N, C, H, W). Simonyan, Vedaldi, Zisserman 2013, section 3."""
    return signal.gradients


def cam(signal: LayerSignal) -> Tensor:
    """`sum_k w_k^c A_k`, signed, (N, h, w). Zhou et al. 2016, equation 2."""
    assert signal.class_weights is not None  # a network without them is refused at load
    return (signal.class_weights[:, :, None, None] * signal.activations).sum(1)


def gradcam(signal: LayerSignal) -> Tensor:
    """`ReLU(sum_k alpha_k A_k)`, `alpha_k = mean_ij dy_c/dA_k,ij`, (N, h, w). Selvaraju et al. 2017, equations 1, 2."""
    alpha = signal.gradients.mean((2, 3), keepdim=True)
    return (alpha * signal.activations).sum(1).relu()


def strongest_channel(attribution: Tensor) -> Tensor:
    """(C, H, W) -> (H, W): the largest absolute value over the channels. Simonyan et al. 2013, section 3.1."""
    return attribution.abs().amax(0)


def as_it_is(attribution: Tensor) -> Tensor:
    """(h, w) -> (h, w)."""
    return attribution


BUILT_IN = (
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
    Method(
        "gradient",
        "gradient of the class score in the input",
        "Simonyan et al. 2013",
        "input",
        gradient,
        strongest_channel,
    ),
    Method(
        "smoothgrad",
        "mean gradient over noisy copies of the input",
        "Smilkov et al. 2017",
        "input",
        gradient,
        strongest_channel,
        samples=50,
    ),
    Method(
        "smoothgrad_squared",
        "mean of the squared gradient over noisy copies",
        "Hooker et al. 2019",
        "input",
        gradient,
        strongest_channel,
        statistic="mean_square",
        samples=50,
    ),
    Method(
        "vargrad",
        "variance of the gradient over noisy copies",
        "Adebayo et al. 2018",
        "input",
        gradient,
        strongest_channel,
        statistic="variance",
        samples=50,
        min_samples=2,
    ),
)
