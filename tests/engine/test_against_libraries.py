"""Unsmoothed maps against Captum, pytorch-grad-cam, torch-cam and zennit, on networks of every usual build.

DenseNet rectifies its features by a function, which no library can hook: its oracle is a copy whose ReLU is a module.
"""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam import methods as torchcam
from zennit.attribution import Gradient

from heatserve.engine import Explainer, Query
from tests.engine.networks import (
    CLASSES,
    LAYERS,
    LINEAR_HEADS,
    NAMES,
    captum_gradcam,
    captum_gradient,
    distance,
    explainer,
    network,
    oracle,
    oracle_layer,
    pictures,
    seeded,
    weights_times_activations,
)

TOLERANCE = 2e-4
TARGETS = range(0, CLASSES, 2)


def maps(name, images, **query):
    return torch.stack([answer.values for answer in explainer(name).explain(images, Query(**query))])


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_equals_captums_saliency(name):
    images = pictures(2)
    for target, contrast in ((7, None), (3, 8)):
        theirs = captum_gradient(oracle(name), images, target, contrast)
        assert theirs.abs().max() > 0
        ours = maps(name, images, method="gradient", target=target, contrast=contrast)
        assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("depth", [0, 1], ids=["last", "earlier"])
@pytest.mark.parametrize("name", NAMES)
def test_gradcam_equals_captums_layer_gradcam(name, depth):
    images, layer, filled = pictures(3), LAYERS[name][depth], 0
    for target in TARGETS:
        theirs = captum_gradcam(name, images, target, layer=layer)
        filled += int((theirs.amax((1, 2)) > 0).sum())
        assert distance(maps(name, images, target=target, layer=layer), theirs) < TOLERANCE
    assert filled >= 3, "maps of nothing prove nothing"


@pytest.mark.parametrize("name", NAMES)
def test_gradcam_of_a_contrast_equals_captums_of_a_difference_of_scores(name):
    images = pictures(3)
    for layer in LAYERS[name]:
        theirs = captum_gradcam(name, images, 2, 5, layer)
        assert distance(maps(name, images, target=2, contrast=5, layer=layer), theirs) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_gradcam_equals_pytorch_grad_cams_after_its_own_rescaling(name):
    images, target = pictures(2), 4
    height, width = images.shape[2:]
    with GradCAM(oracle(name), [oracle_layer(name, LAYERS[name][0])]) as method:
        # It takes gradients from the parameters' graph; ours are frozen, so the input carries it.
        theirs = method(images.clone().requires_grad_(), [ClassifierOutputTarget(target)] * 2)
    # It scales a layer's map, resizes it, and scales the mean over its (one) layers again.
    ours = scale_cam_image(scale_cam_image(maps(name, images, target=target).numpy(), (width, height)))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradcam_equals_torchcams(name):
    images, net = pictures(3), oracle(name)
    with torchcam.GradCAM(net, oracle_layer(name, LAYERS[name][0])) as method:
        scores = net(images.clone().requires_grad_())
        theirs = method([1, 6, 9], scores, normalized=False)[0]
    ours = torch.cat([maps(name, image[None], target=target) for image, target in zip(images, (1, 6, 9))])
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("name", LINEAR_HEADS)
def test_cam_equals_torchcams(name):
    images, net = pictures(3), oracle(name)
    linear = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torchcam.CAM(net, oracle_layer(name, LAYERS[name][0]), linear) as method, torch.no_grad():
        net(images)
        theirs = method(6, normalized=False)[0]
    assert distance(maps(name, images, method="cam", target=6), theirs) < TOLERANCE


@pytest.mark.parametrize("name", LINEAR_HEADS)
def test_cam_is_the_weights_times_the_activations(name):
    images, signs = pictures(3), set()
    for target, contrast in ((0, None), (9, None), (4, 1)):
        expected = weights_times_activations(name, images, target, contrast)
        ours = maps(name, images, method="cam", target=target, contrast=contrast)
        assert distance(ours, expected) < TOLERANCE
        signs |= set(expected.sign().flatten().tolist())
    assert signs >= {-1, 1}, "or the sign is not tested"


@pytest.mark.parametrize("name", LINEAR_HEADS)
def test_the_positive_part_of_cam_is_gradcam_times_the_number_of_places(name):
    images = pictures(3)
    cam = maps(name, images, method="cam", target=2)
    for theirs in (captum_gradcam(name, images, 2), maps(name, images, method="gradcam", target=2)):
        assert distance(cam.relu() / cam[0].numel(), theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "in_place"])
def test_the_gradient_equals_zennits(name):
    images = pictures(3)
    with Gradient(model=network(name)) as attributor:
        _, theirs = attributor(images.clone(), torch.eye(CLASSES)[[1, 1, 1]])
    assert distance(maps(name, images, method="gradient", target=1), theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_without_a_target_the_predicted_class_is_explained_and_with_a_rank_the_one_ranked_there(name):
    images = pictures(3)
    order = oracle(name)(images).argsort(dim=1, descending=True)
    for rank in (0, 1, 4):
        answers = explainer(name).explain(images, Query("gradient", rank=rank))
        for image, answer, target in zip(images, answers, order[:, rank].tolist()):
            assert answer.query.target == target
            assert distance(answer.values, captum_gradient(oracle(name), image[None], target)[0]) < TOLERANCE


def test_the_map_of_a_gradient_is_its_largest_absolute_value_over_the_channels():
    answer = explainer("in_place").explain(pictures(1), Query("gradient", target=0))[0]
    np.testing.assert_array_equal(answer.map.numpy(), np.abs(answer.values.numpy()).max(axis=0))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_layer_rectified_by_a_function_equals_captums_at_a_relu_module_under_any_head(in_place):
    """Where the head is not linear autograd has to pass the function's own ReLU, also where the activation is 0."""

    class ByFunction(torch.nn.Module):
        def __init__(self, rectify):
            super().__init__()
            self.conv, self.rectify = torch.nn.Conv2d(3, 8, 5, 4), rectify
            self.head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1224, 6), torch.nn.Tanh())
            self.last = torch.nn.Linear(6, CLASSES)

        def forward(self, x):
            return self.last(self.head(self.rectify(self.conv(x))))

    images, filled = pictures(3), 0
    function = seeded(lambda: ByFunction(lambda a: torch.nn.functional.relu(a, inplace=in_place)))
    module = seeded(lambda: ByFunction(torch.nn.ReLU()))
    one = Explainer(function, images, layers=("conv:relu",))
    for target in TARGETS:
        theirs = LayerGradCam(module, module.rectify).attribute(images, target=target, relu_attributions=True)
        ours = torch.stack([answer.values for answer in one.explain(images, Query(target=target))])
        assert distance(ours, theirs[:, 0].detach()) < TOLERANCE
        filled += int(theirs.max() > 0)
    assert filled == len(TARGETS)
