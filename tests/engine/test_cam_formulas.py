"""Identities of the maps' formulas, and the contrast with the nearest classes against the libraries' Finer-CAM."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from torchcam import methods as torchcam

from heatserve.engine import METHODS, Explainer, Query
from heatserve.engine.method import LayerSignal
from heatserve.engine.ranking import nearest
from tests.engine.networks import (
    LAYERS,
    difference_of_scores,
    distance,
    explainer,
    oracle,
    oracle_layer,
    pictures,
    small,
)

TOLERANCE = 1e-4
TARGETS = (7, 2, 4)


def signal_of(scale: float, gradient_scale: float) -> LayerSignal:
    """Activations as behind a ReLU, some channels all 0, and gradients of both signs."""
    generator = torch.Generator().manual_seed(3)
    taken = torch.randn((2, 12, 4, 5), generator=generator).relu() * torch.tensor([1, 1, 0] * 4)[:, None, None]
    return LayerSignal(taken * scale, torch.randn(taken.shape, generator=generator) * gradient_scale, None)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam", "xgradcam"])
def test_the_map_of_scaled_activations_is_the_scaled_map(method, scale):
    """The formulas have no constant with a unit."""
    found, expected = (METHODS[method].attribute(signal_of(one, 1.0)) for one in (scale, 1.0))
    assert distance(found / scale, expected) < 1e-5 and expected.amax() > 0


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_gradcam_plus_plus_depends_on_products_of_activation_and_gradient_alone(scale):
    found, expected = (METHODS["gradcam_plus_plus"].attribute(signal_of(one, 1 / one)) for one in (scale, 1.0))
    assert distance(found, expected) < 1e-5 and expected.amax() > 0


@pytest.mark.parametrize(
    ("method", "total", "weight"),
    [("gradcam_plus_plus", -2.0, 4 / 6), ("xgradcam", 0.0, 1.0)],
)
def test_a_channel_whose_denominator_is_0_has_no_weight(method, total, weight):
    """The other channel is 1 everywhere, and so is every gradient: the map is its weight."""
    taken = torch.stack([torch.tensor([[1.0, 2.0], [3.0, total - 6.0]]), torch.ones(2, 2)])[None]
    found = METHODS[method].attribute(LayerSignal(taken, torch.ones_like(taken), None))
    assert torch.allclose(found, torch.full((1, 2, 2), weight))


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_a_contrast_with_the_nearest_class_is_pytorch_grad_cams_finer_cam(name):
    images, layer = pictures(3), LAYERS[name][0]
    module = oracle_layer(name, layer)
    with pytorch_grad_cam.FinerCAM(oracle(name), [module]) as theirs:
        theirs.base_cam.aggregate_multi_layers = lambda maps: np.concatenate(maps, axis=1)[:, 0]
        theirs.base_cam.get_target_width_height = lambda _images: None
        size = explainer(name).run(images[:1], [[Query()]])[1][0][0].values.shape
        theirs.base_cam.get_target_width_height = lambda _images: (size[1], size[0])
        expected = torch.from_numpy(theirs(images.clone().requires_grad_(), comparison_categories=[1]))
    for answer, one in zip(explainer(name).explain(images, Query(nearest=1)), expected):
        ours = answer.values - answer.values.min()
        assert distance(ours / ours.max().clamp_min(1e-7), one) < 1e-3


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_a_contrast_with_the_nearest_k_is_the_gradient_of_a_difference_from_their_mean(name):
    images, asked = pictures(3), [Query("gradient", target=t, nearest=k) for t, k in ((7, 3), (2, 1), (4, 2))]
    _, answers = explainer(name).run(images, [[query] for query in asked])
    scores = oracle(name)(images)
    for image, query, row, (answer,) in zip(images, asked, scores, answers):
        near = sorted((c for c in range(10) if c != query.target), key=lambda c: abs(row[c] - row[query.target]))
        x = image[None].clone().requires_grad_()
        with torch.enable_grad():
            score = sum(difference_of_scores(oracle(name), query.target, c)(x) for c in near[: query.nearest])
            (expected,) = torch.autograd.grad(score.sum() / query.nearest, x)
        assert distance(answer.values, expected[0]) < TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
@pytest.mark.parametrize(("method", "base"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
def test_a_contrast_with_the_nearest_k_is_torchcams_finer_cam_at_its_full_strength(name, method, base):
    images, net, layer = pictures(3), oracle(name), LAYERS[name][1]
    for count in (1, 3):
        with torchcam.FinerCAM(
            net,
            oracle_layer(name, layer),
            base_method=getattr(torchcam, base),
            gamma=1.0,
            num_references=count,
        ) as one:
            expected = one([*TARGETS], net(images.clone().requires_grad_()), normalized=False)[0]
        asked = [[Query(method, target=t, layer=layer, nearest=count)] for t in TARGETS]
        for (answer,), theirs in zip(explainer(name).run(images, asked)[1], expected):
            assert distance(answer.values, theirs) < TOLERANCE


def test_the_target_is_not_among_its_nearest_classes_even_where_others_are_masked():
    scores = torch.tensor([[3.0, -torch.inf, 1.0], [2.0, 2.0, 2.0]])
    assert nearest(scores, torch.tensor([0, 0]), 2).tolist() == [[2, 1], [1, 2]]


def test_a_number_of_nearest_classes_that_cannot_be_is_refused():
    for bad in ({"nearest": 0}, {"nearest": 1, "contrast": 2}):
        with pytest.raises(ValueError, match="nearest must be at least 1, and excludes contrast"):
            Query(**bad)
    with pytest.raises(ValueError, match="nearest must be below the number of classes, 6"):
        Explainer(small(), pictures(1)).run(pictures(1), [[Query(nearest=6)]])
