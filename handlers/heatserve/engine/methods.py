"""The methods: each a function from a signal to an attribution, and a line in the one registry.

A method says where its signal comes from (an inner layer, or the input), what its attribution is, which statistic
over noisy samples it means, and how the attribution becomes a map. How to write one: docs/write-a-method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LayerSignal:
    """What a layer says of N rows: activations and d(score)/d(activation), both (N, K, h, w).

    `class_weights`, (N, K), are the linear layer's weights of each row's score; None where the network does not end
    in global average pooling and one linear layer.
    """

    activations: Tensor
    gradients: Tensor
    class_weights: Tensor | None


@dataclass(frozen=True)
class InputSignal:
    """The input of N rows and d(score)/d(input), both (N, C, H, W)."""

    inputs: Tensor
    gradients: Tensor


def gradient(signal: InputSignal) -> Tensor:
    """`dy_c/dx`, signed, (N, C, H, W). Simonyan, Vedaldi, Zisserman 2013, section 3."""
    return signal.gradients


def cam(signal: LayerSignal) -> Tensor:
    """`sum_k w_k^c A_k`, signed, (N, h, w). Zhou et al. 2016, equation 2."""
    assert signal.class_weights is not None  # the explainer refuses CAM at load where there are none
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


@dataclass(frozen=True)
class Method:
    """One row of the registry.

    signal: "layer" or "input". statistic over samples: "mean", "mean_square" or "variance". samples: the default.
    display: what a picture is scaled by, "maximum" or "percentile" (the 99th).
    """

    name: str
    summary: str
    source: str
    signal: str
    attribute: Callable[..., Tensor]
    reduce: Callable[[Tensor], Tensor]
    statistic: str = "mean"
    samples: int = 1
    min_samples: int = 1
    display: str = "percentile"
    needs_linear_head: bool = False


_ALL = (
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

METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}
