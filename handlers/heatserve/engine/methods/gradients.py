"""Gradients of the score in the input, and their statistics over noisy copies."""

from __future__ import annotations

from torch import Tensor

from ..method import InputSignal, Method


def gradient(signal: InputSignal) -> Tensor:
    """`dy_c/dx`, signed, (N, C, H, W). Simonyan, Vedaldi, Zisserman 2013, section 3."""
    return signal.gradients


def strongest_channel(attribution: Tensor) -> Tensor:
    """(C, H, W) -> (H, W): the largest absolute value over the channels. Simonyan et al. 2013, section 3.1."""
    return attribution.abs().amax(0)


GRADIENTS = (
    Method(
        "gradient",
        "gradient of the class score in the input",
        "Simonyan et al. 2013",
        "input",
        gradient,
        strongest_channel,
        definition="dy_c/dx",
        reference="Captum Saliency, zennit Gradient",
    ),
    Method(
        "smoothgrad",
        "mean gradient over noisy copies of the input",
        "Smilkov et al. 2017",
        "input",
        gradient,
        strongest_channel,
        samples=50,
        definition="mean_n dy_c/dx(x + e_n), e_n ~ N(0, sigma^2)",
        reference="Captum NoiseTunnel (smoothgrad)",
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
        definition="mean_n (dy_c/dx(x + e_n))^2",
        reference="Captum NoiseTunnel (smoothgrad_sq)",
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
        definition="var_n dy_c/dx(x + e_n)",
        reference="Captum NoiseTunnel (vargrad)",
    ),
)
