"""The figures of the examples: each function measures one disagreement, and gives the cell of the table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, FinerWeightedTarget
from torch import nn

from devtools.disagreements.example import COPIES, HEAD, MIDDLE, NARROW, Example, difference, distance
from heatserve.engine.fusion import fused
from heatserve.engine.methods.gradients import strongest_channel

#: It measures one disagreement, and gives the cell of the table.
Figure = Callable[[Example], str]


def percent(value: float) -> str:
    """A share in percent; nothing below a tenth of a percent is told apart."""
    return f"{100 * value:.0f} %" if value >= 0.01 else "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def of_the_score(of: Example) -> str:
    softmax = of.pytorch_grad_cam("GradCAM", HEAD, ClassifierOutputSoftmaxTarget(of.target))
    return f"Grad-CAM: {percent(difference(of.ours('gradcam'), softmax))}"


def of_the_mean(of: Example) -> str:
    ours = strongest_channel(of.copies.mean(0))
    return f"{COPIES} copies: {percent(difference(ours, strongest_channel(of.copies.abs().mean(0))))}"


def of_the_channels(of: Example) -> str:
    gradient = of.gradients(of.image)[0]
    return f"gradient: {percent(difference(strongest_channel(gradient), gradient.abs().sum(0)))}"


def of_noise(of: Example) -> str:
    sigma = 0.15 * float(of.image.amax() - of.image.amin())
    generator = torch.Generator().manual_seed(0)
    wide = of.image[0] + torch.randn((COPIES, *of.image.shape[1:]), generator=generator)
    ours, theirs = (strongest_channel(gradients.mean(0)) for gradients in (of.copies, of.gradients(wide)))
    return f"{COPIES} copies, a spread of 1 for {sigma:.2f}: {percent(difference(ours, theirs))}"


def of_black(of: Example) -> str:
    ours = of.ours("layercam", MIDDLE)
    theirs = torch.from_numpy(scale_cam_image(ours[None].numpy()))
    head = of.ours("gradcam")
    others = torch.from_numpy(scale_cam_image(head[None].numpy()))
    return f"LayerCAM, 14 × 14: {percent(difference(ours, theirs))}; Grad-CAM: {percent(difference(head, others))}"


def of_white(of: Example) -> str:
    shown = strongest_channel(of.gradients(of.image)[0]).flatten()
    levels = (shown / shown.quantile(0.99)).clamp_max(1).mean(), (shown / shown.amax()).mean()
    by_percentile, by_maximum = (percent(float(level)) for level in levels)
    return f"mean grey of a gradient: {by_percentile} by the percentile, {by_maximum} by the maximum"


def of_enlarging(of: Example) -> str:
    ours = of.ours("gradcam")[None, None]
    sized = nn.functional.interpolate(ours, 224, mode="bilinear", align_corners=False)
    aligned = nn.functional.interpolate(ours, 224, mode="bilinear", align_corners=True)
    blocks = nn.functional.interpolate(ours, 224, mode="nearest")
    figures = [percent(difference(sized, other)) for other in (aligned, blocks)]
    return f"7 × 7 to 224 × 224: {figures[0]} aligned, {figures[1]} nearest"


def of_gradcam_plus_plus(of: Example) -> str:
    ours = of.ours("gradcam_plus_plus", MIDDLE)
    theirs = of.pytorch_grad_cam("GradCAMPlusPlus", MIDDLE), of.torch_cam("GradCAMpp", [MIDDLE])[0]
    return "14 × 14: " + ", ".join(
        f"{percent(difference(ours, found))} {name}" for found, name in zip(theirs, ("pytorch-grad-cam", "torch-cam"))
    )


def of_xgradcam(of: Example) -> str:
    ours = of.ours("xgradcam", MIDDLE)
    small = of.pytorch_grad_cam("XGradCAM", MIDDLE, factor=1e-8)
    return (
        f"14 × 14: {percent(difference(ours, of.pytorch_grad_cam('XGradCAM', MIDDLE)))}; "
        f"activations × 1e-8: {percent(difference(ours, small))}"
    )


def of_eigencam(of: Example) -> str:
    taken = of.recorded(HEAD)[0][0].flatten(1)
    centred = taken - taken.mean(1, keepdim=True)
    signed = (torch.linalg.svd(centred.T, full_matrices=False)[2][0] @ centred).reshape(7, 7)
    plain = (torch.linalg.svd(taken.T, full_matrices=False)[2][0] @ taken).reshape(7, 7)
    ours = of.ours("eigencam")
    other = min((signed.relu(), (-signed).relu()), key=lambda found: -difference(ours, found))
    return f"the other sign: {percent(difference(ours, other))}; not centred: {percent(difference(ours, plain.abs()))}"


def of_finer_cam(of: Example) -> str:
    ours = of.ours("gradcam", nearest=3)
    weighed = of.pytorch_grad_cam("GradCAM", HEAD, FinerWeightedTarget(of.target, of.nearest(3), 1.0))
    weaker = of.torch_cam("FinerCAM", [HEAD], gamma=0.6, num_references=3)[0]
    return (
        f"Grad-CAM against 3: {percent(difference(ours, weighed))} weighed by probability, "
        f"{percent(difference(ours, weaker))} at 0.6"
    )


def of_gradcam(of: Example) -> str:
    theirs = of.captum_gradcam(MIDDLE)
    return f"Grad-CAM, 14 × 14: {percent(float((theirs < 0).float().mean()))} of the places are negative"


def of_hirescam(of: Example) -> str:
    activations, gradients = of.recorded(MIDDLE)
    signed = (activations * gradients).sum(1)
    share = float(signed.clamp_max(0).abs().sum() / signed.abs().sum())
    return f"14 × 14: {percent(share)} of the map's size is negative"


def of_fusion(of: Example) -> str:
    maps = [of.ours("layercam", layer)[None] for layer in (HEAD, MIDDLE)]
    theirs = of.torch_cam_fused("LayerCAM", [HEAD, MIDDLE])
    return f"LayerCAM of two layers: {percent(difference(fused(maps), theirs))}"


def of_score_cam(of: Example) -> str:
    ours, aligned, probable = of.answer("scorecam", NARROW).values, of.score_cam(True, False), of.score_cam(False, True)
    return (
        f"14 × 14: {percent(difference(ours, aligned))} aligned, {percent(difference(ours, probable))} by probability; "
        "a baseline changes nothing, as it cancels in the softmax over the channels"
    )


def of_guided_backpropagation(of: Example) -> str:
    theirs, guided = of.guided()
    plain = of.gradients(of.image)
    return (
        f"ReLU6 modules: Captum's map is {percent(difference(plain, theirs))} off the plain gradient, "
        f"and {percent(difference(guided, theirs))} off the rule at every rectifier"
    )


def of_the_rule(of: Example) -> str:
    return f"50 points: {percent(distance(of.path(50).values, of.captum_path()))}"


def of_the_points(of: Example) -> str:
    few, many = of.path(50), of.path(200)
    errors = " and ".join(percent(found.facts["completeness_error"]) for found in (few, many))
    return f"50 points for 200: {percent(distance(many.values, few.values))}; `completeness_error`: {errors}"


def of_guided_gradcam(of: Example) -> str:
    guided, cam = of.answer("guided_backpropagation").values, of.answer("gradcam").values
    nearest = guided * nn.functional.interpolate(cam[None, None], guided.shape[1:], mode="nearest")[0]
    return percent(distance(of.answer("guided_gradcam").values, nearest))
