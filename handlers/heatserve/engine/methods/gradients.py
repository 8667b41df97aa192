"""Gradients of the score in the input, and their statistics over noisy copies."""

from __future__ import annotations

from torch import Tensor

from ..method import InputSignal, Method


def gradient(signal: InputSignal) -> Tensor:
    """`dy_c/dx`, signed, (N, C, H, W). Simonyan, Vedaldi, Zisserman 2013, section 3."""
    return signal.gradients


def input_x_gradient(signal: InputSignal) -> Tensor:
    """`x * dy_c/dx`, signed, (N, C, H, W). Shrikumar et al. 2016."""
    return signal.inputs * signal.gradients


def strongest_channel(attribution: Tensor) -> Tensor:
    """(C, H, W) -> (H, W): the largest absolute value over the channels. Simonyan et al. 2013, section 3.1."""
    return attribution.abs().amax(0)


def summed(attribution: Tensor) -> Tensor:
    """(C, H, W) -> (H, W): the sum over the channels. The map of parts of a score then adds up to the score."""
    return attribution.sum(0)


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
        "input_x_gradient",
        "input times the gradient of the class score in it, signed",
        "Shrikumar et al. 2016",
        "input",
        input_x_gradient,
        summed,
        signed=True,
        definition="x * dy_c/dx; the map is the sum over the channels",
        reference="Captum InputXGradient",
        caveat="A pixel of the mean colour is 0 in `x`, and 0 in the map whatever its gradient is.",
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
