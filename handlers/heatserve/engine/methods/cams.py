"""Class activation maps: the activations of an inner layer, each channel weighted for the explained class.

All but CAM keep the positive part alone, as Grad-CAM does.
"""

from __future__ import annotations

import torch
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


def hirescam(signal: LayerSignal) -> Tensor:
    """`ReLU(sum_k dy_c/dA_k * A_k)`, (N, h, w). Draelos and Carin 2020, whose own sum keeps both signs."""
    return (signal.gradients * signal.activations).sum(1).relu()


def layercam(signal: LayerSignal) -> Tensor:
    """`ReLU(sum_k ReLU(dy_c/dA_k) * A_k)`, (N, h, w). Jiang et al. 2021, equations 3 to 5."""
    return (signal.gradients.relu() * signal.activations).sum(1).relu()


def gradcam_plus_plus(signal: LayerSignal) -> Tensor:
    """`ReLU(sum_k w_k A_k)`, (N, h, w). Chattopadhyay et al. 2018, equations 5, 7 and 19.

    `w_k = sum_ij ReLU(g) / (2 + g sum_ab A_k,ab)`, `g = dy_c/dA_k,ij`: equation 19 with its fraction cancelled by g^2.
    A place whose denominator is 0, which signed activations may give, has no weight.
    """
    total = signal.activations.sum((2, 3), keepdim=True)
    rising = signal.gradients.relu()
    weights = _share(rising, 2 + rising * total).sum((2, 3), keepdim=True)
    return (weights * signal.activations).sum(1).relu()


def xgradcam(signal: LayerSignal) -> Tensor:
    """`ReLU(sum_k w_k A_k)`, `w_k = sum_ij A_k,ij / sum_ab A_k,ab * dy_c/dA_k,ij`, (N, h, w). Fu et al. 2020, eq. 8.

    A channel whose sum is 0 has no weight.
    """
    total = signal.activations.sum((2, 3), keepdim=True)
    weights = _share((signal.gradients * signal.activations).sum((2, 3), keepdim=True), total)
    return (weights * signal.activations).sum(1).relu()


def eigencam(signal: LayerSignal) -> Tensor:
    """The positive part of the activations' first principal component, (N, h, w). Muhammad and Yeasin 2020.

    Each channel is centred over the places, as a principal component needs it; the paper writes the decomposition
    without this step. A component has no sign of its own: here it rises with the sum of the channels.
    """
    rows, channels, height, width = signal.activations.shape
    places = signal.activations.flatten(2).transpose(1, 2)
    centred = places - places.mean(1, keepdim=True)
    if height * width <= channels:
        values, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
        component = vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(centred.transpose(1, 2) @ centred)
        component = (centred @ vectors[:, :, -1:])[:, :, 0]
    against = (component * centred.sum(2)).sum(1, keepdim=True) < 0
    return torch.where(against, -component, component).relu().reshape(rows, height, width)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, and 0 where the whole is 0. A constant in the denominator would change small activations."""
    return (part / whole).masked_fill_(whole == 0, 0.0)


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
        definition="ReLU(sum_k mean_ij(dy_c/dA_k,ij) A_k)",
        reference="pytorch-grad-cam GradCAM, torch-cam GradCAM, Captum LayerGradCam",
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
        definition="sum_k w_k^c A_k",
        reference="torch-cam CAM",
    ),
    Method(
        "hirescam",
        "ReLU of the activations, each place weighted by its own gradient",
        "Draelos and Carin 2020",
        "layer",
        hirescam,
        as_it_is,
        display="maximum",
        definition="ReLU(sum_k dy_c/dA_k * A_k)",
        reference="pytorch-grad-cam HiResCAM",
        caveat="The positive part is kept, as for Grad-CAM; the paper's own sum has both signs.",
    ),
    Method(
        "layercam",
        "activations, each place weighted by the positive part of its own gradient; suits early layers too",
        "Jiang et al. 2021",
        "layer",
        layercam,
        as_it_is,
        display="maximum",
        definition="ReLU(sum_k ReLU(dy_c/dA_k) * A_k)",
        reference="pytorch-grad-cam LayerCAM, torch-cam LayerCAM",
    ),
    Method(
        "gradcam_plus_plus",
        "activations weighted by positive gradients, more where a channel is active in few places",
        "Chattopadhyay et al. 2018",
        "layer",
        gradcam_plus_plus,
        as_it_is,
        display="maximum",
        definition="ReLU(sum_k w_k A_k), w_k = sum_ij ReLU(g_k,ij) / (2 + g_k,ij sum_ab A_k,ab)",
        reference="pytorch-grad-cam GradCAMPlusPlus, without the constant that it adds to a denominator",
        caveat="The formula assumes activations that are not negative: behind a layer norm, or a block without a ReLU, "
        "a few channels may make the whole map.",
    ),
    Method(
        "xgradcam",
        "activations weighted by their gradients, averaged with the activations as weights",
        "Fu et al. 2020",
        "layer",
        xgradcam,
        as_it_is,
        display="maximum",
        definition="ReLU(sum_k w_k A_k), w_k = sum_ij A_k,ij g_k,ij / sum_ab A_k,ab",
        reference="pytorch-grad-cam XGradCAM, torch-cam XGradCAM, without the constants that they add to a denominator",
        caveat="The formula assumes activations that are not negative: behind a layer norm, or a block without a ReLU, "
        "a few channels may make the whole map.",
    ),
    Method(
        "eigencam",
        "first principal component of the activations; no class and no gradient enters it",
        "Muhammad and Yeasin 2020",
        "layer",
        eigencam,
        as_it_is,
        display="maximum",
        needs_backward=False,
        definition="ReLU(+-(A - mean_ij A) v_1), v_1 the first right singular vector; the sign that sum_k A_k has",
        reference="pytorch-grad-cam EigenCAM, but for the sign",
        caveat="The map is the same for every class. The paper's formula does not centre the channels.",
    ),
)
