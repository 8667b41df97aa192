"""Class activation maps against pytorch-grad-cam and torch-cam, row by row in a batch of mixed methods and targets."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from cv2 import resize
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam import methods as torchcam

from heatserve.engine import METHODS, Query, UnsuitableModel, activations
from heatserve.engine.fusion import fused
from heatserve.engine.methods import BUILT_IN
from heatserve.engine.steps import finish
from tests.engine.networks import (
    LAYERS,
    distance,
    explainer,
    oracle,
    oracle_layer,
    pictures,
)

TOLERANCE = 1e-4
THEIRS = {
    "gradcam": "GradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "gradcam_plus_plus": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "eigencam": "EigenCAM",
}
TARGETS = (7, 2, 4)
CASES = [(name, depth) for name in ("resnet18", "vgg11") for depth in (0, 1)]


def of_pytorch_grad_cam(method: str, name: str, layer: str, images, targets):
    """Their maps before their scaling, (N, h, w), with the positive part that they keep.

    Grad-CAM++ gets activations that are smaller, and gradients that are larger, by the same factor. That changes
    nothing in its formula, but makes the constant that it adds to a denominator negligible.
    """
    net, module = oracle(name, torch.float64), oracle_layer(name, layer, torch.float64)
    with pytorch_grad_cam.GradCAM(net, [module]) as recorder:
        recorder(images.clone().requires_grad_(), [ClassifierOutputTarget(target) for target in targets])
        taps = recorder.activations_and_grads
        recorded, gradients = taps.activations[0].numpy(), taps.gradients[0].numpy()
    factor = 2.0**20 if method == "gradcam_plus_plus" else 1.0
    with getattr(pytorch_grad_cam, THEIRS[method])(net, [module]) as one:
        found = one.get_cam_image(images, module, targets, recorded / factor, gradients * factor, False)
    return torch.from_numpy(np.asarray(found, np.float64))


@pytest.mark.parametrize(("name", "depth"), CASES)
def test_each_map_in_a_mixed_batch_is_pytorch_grad_cams(name, depth):
    """In float64: where activations are signed, Grad-CAM++ divides by numbers near 0, which magnifies rounding."""
    images, layer = pictures(3).double(), LAYERS[name][depth]
    other = [Query("gradient", target=1), Query("gradcam", layer=layer), Query("smoothgrad", target=2)]
    asked = [[Query(method, target=target, layer=layer) for method in THEIRS] for target in TARGETS]
    asked = [[*asks[row:], *asks[:row], other[row]] for row, asks in enumerate(asked)]
    _, answers = explainer(name, torch.float64).run(images, asked)
    for method in THEIRS:
        theirs, filled = of_pytorch_grad_cam(method, name, layer, images, TARGETS), 0
        for row, expected in enumerate(theirs):
            (ours,) = [a.values for a in answers[row] if a.query.method == method and a.query.target == TARGETS[row]][
                :1
            ]
            if method == "eigencam" and distance(ours, expected.relu()) > distance(ours, -expected.clamp_max(0)):
                expected = -expected  # a component has no sign of its own
            assert distance(ours, expected.relu()) < TOLERANCE, (method, row)
            filled += int(ours.max() > 0)
        assert filled >= 2, "maps of nothing prove nothing"


@pytest.mark.parametrize(("name", "depth"), CASES)
@pytest.mark.parametrize(("method", "theirs"), [("layercam", "LayerCAM"), ("xgradcam", "XGradCAM")])
def test_layercam_and_xgradcam_are_torchcams(name, depth, method, theirs):
    images, net, layer = pictures(3), oracle(name), LAYERS[name][depth]
    with getattr(torchcam, theirs)(net, oracle_layer(name, layer)) as extractor:
        expected = extractor([*TARGETS], net(images.clone().requires_grad_()), normalized=False)[0]
    _, answers = explainer(name).run(images, [[Query(method, target=t, layer=layer)] for t in TARGETS])
    for (answer,), one in zip(answers, expected):
        assert distance(answer.values, one) < TOLERANCE


def test_the_sign_of_eigencam_is_that_of_the_sum_of_the_channels():
    images = pictures(4)
    for layer in LAYERS["resnet18"]:
        taken = activations(oracle("resnet18"), images, [layer])[1][layer]
        for row, answer in enumerate(explainer("resnet18").explain(images, Query("eigencam", layer=layer))):
            centred = taken[row].flatten(1) - taken[row].flatten(1).mean(1, keepdim=True)
            component = torch.linalg.svd(centred.double().T)[2][0] @ centred.double()
            rises = float(component @ centred.double().sum(0)) > 0
            expected = (component if rises else -component).relu().reshape(answer.values.shape)
            assert distance(answer.values.double(), expected) < TOLERANCE


def test_eigencam_takes_no_backward_pass_and_is_the_same_for_each_class(monkeypatch):
    one = explainer("vgg11")
    monkeypatch.setattr(torch.autograd, "grad", None)
    _, [answers] = one.run(pictures(1), [[Query("eigencam", target=t) for t in (0, 5)]])
    assert torch.equal(answers[0].values, answers[1].values) and answers[0].values.max() > 0


def test_maps_of_one_score_share_one_backward_pass_and_other_scores_have_their_own(monkeypatch):
    one, passes, grad = explainer("vgg11"), [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or grad(*a, **k))
    images = pictures(2)
    same = [Query(method, target=3) for method in THEIRS]
    one.run(images, [same, [*same, Query("layercam", target=3, layer="features.8")]])
    assert len(passes) == 1
    passes.clear()
    _, [found, _] = one.run(images, [[*same, Query(target=4), Query(target=3, contrast=1), Query(target=3)], same])
    assert len(passes) == 3 and torch.equal(found[0].values, found[-1].values)


@pytest.mark.fast_path
def test_the_closed_form_answers_maps_of_the_pooled_layer_without_a_backward_pass(monkeypatch):
    images, one = pictures(2), explainer("resnet18")
    asked = [[Query(m, target=3), Query(m, target=1, nearest=2)] for m in ("hirescam", "xgradcam")]
    by_autograd = [
        finish(one.network.passes(image[None], [asks], closed_form=False))[1][0] for image, asks in zip(images, asked)
    ]
    monkeypatch.setattr(torch.autograd, "grad", None)
    _, answers = one.run(images, asked)
    for row, theirs in zip(answers, by_autograd):
        for ours, other in zip(row, theirs):
            assert distance(ours.values, other.values) < TOLERANCE


def scaled_by_the_maximum(maps, size=None):
    return np.stack([resize(one / (1e-7 + one.max()), size or one.shape[::-1]) for one in maps])


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_fused_layers_are_pytorch_grad_cams_mean_of_scaled_maps(name, method, monkeypatch):
    images, layers = pictures(3), LAYERS[name]
    modules = [oracle_layer(name, layer) for layer in layers]
    single = [explainer(name).run(images, [[Query(method, target=t, layer=one)] for t in TARGETS])[1] for one in layers]
    size = max((rows[0][0].values.shape for rows in single), key=lambda shape: shape.numel())
    with getattr(pytorch_grad_cam, THEIRS[method])(oracle(name), modules) as theirs:
        theirs.get_target_width_height = lambda _images: (size[1], size[0])
        targets = [ClassifierOutputTarget(target) for target in TARGETS]
        # Theirs subtracts the smallest value of each map, and scales the mean again; ours keep their zero.
        with monkeypatch.context() as patch:
            patch.setattr("pytorch_grad_cam.base_cam.scale_cam_image", scaled_by_the_maximum)
            expected = torch.from_numpy(theirs(images.clone().requires_grad_(), targets))
    _, answers = explainer(name).run(images, [[Query(method, target=t, layer="+".join(layers))] for t in TARGETS])
    for (answer,), one in zip(answers, expected):
        assert distance(answer.values / answer.values.max().clamp_min(1e-7), one) < 1e-4


def test_the_negative_part_of_a_map_does_not_enter_a_fusion():
    signed = torch.tensor([[[-3.0, 1.0], [0.0, 2.0]]])
    assert fused([signed, torch.full_like(signed, -1.0)]).tolist() == [[[0.0, 0.25], [0.0, 0.5]]]


def test_a_fusion_names_the_layer_that_is_not_tapped_and_cam_has_one_layer():
    one = explainer("resnet18")
    with pytest.raises(UnsuitableModel, match="layer 'layer1' is not tapped"):
        one.run(pictures(1), [[Query(layer="layer4+layer1")]])
    with pytest.raises(UnsuitableModel, match="cam has one layer"):
        one.run(pictures(1), [[Query("cam", layer="layer4+layer3")]])


def test_every_built_in_method_has_a_definition_and_a_reference():
    assert all(METHODS[row.name].definition and row.reference for row in BUILT_IN)
