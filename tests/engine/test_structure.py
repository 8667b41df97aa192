"""Which layer maps come from, and which networks are refused with what advice."""

import pytest
import torch
import torchvision
from torch import nn

from heatserve.engine import METHODS, Explainer, Query, UnsuitableModel
from tests.engine.networks import LAYERS, LINEAR_HEADS, captum_gradcam, distance, network, pictures, seeded, small

IMAGES = pictures(2)


def sequential(**named):
    net = nn.Sequential()
    for name, module in named.items():
        net.add_module(name, module)
    return net.eval()


@pytest.mark.parametrize("name", [*LAYERS, "googlenet"])
def test_the_layer_is_found_without_being_named(name):
    if name == "googlenet":
        build = lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False, num_classes=10)  # noqa: E731
        one = Explainer(seeded(build), IMAGES)
        assert one.layer == "inception5b"
        assert "cam" in one.methods()
        return
    one = Explainer(network(name), IMAGES)
    assert one.layer == LAYERS[name][0]
    of_attention = {name for name, row in METHODS.items() if row.signal == "attention"}
    assert set(one.methods()) == set(METHODS) - of_attention - (set() if name in LINEAR_HEADS else {"cam"})


def test_explaining_by_the_found_layer_is_explaining_by_its_name():
    one = Explainer(network("resnet18"), IMAGES)
    answers = one.explain(IMAGES, Query(target=3))
    assert distance(torch.stack([a.values for a in answers]), captum_gradcam("resnet18", IMAGES, 3)) < 2e-4


def vit():
    return torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10
    )


@pytest.mark.parametrize(
    ("build", "images", "layer"),
    [
        (vit, pictures(2, (64, 64)), "encoder.layers.encoder_layer_1.ln_1"),
        (lambda: torchvision.models.squeezenet1_1(num_classes=10), pictures(2, (64, 96)), "features"),
    ],
    ids=["vit", "squeezenet"],
)
def test_the_layer_is_found_where_the_end_is_no_trunk_pooling_and_linear_layer(build, images, layer):
    one = Explainer(seeded(build), images)
    assert one.layer == layer and one.layout_of(layer).proved
    assert one.explain(images, Query())[0].values.ndim == 2


class Scattered(nn.Module):
    """A network whose convolutions see the pixels in an order that is none."""

    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))
        x = self.net.trunk(x.flatten(2)[:, :, order].view_as(x))
        return self.net.linear(x.sum((2, 3)).tanh())


def test_where_the_layer_is_not_clear_layer_methods_are_refused_with_candidates():
    one = Explainer(Scattered().eval(), IMAGES)
    for ask in (lambda: one.layer, lambda: one.check("gradcam"), lambda: one.explain(IMAGES, Query("gradcam"))):
        with pytest.raises(UnsuitableModel, match=r"name one with `layer` \(candidates: .*net.trunk.2"):
            ask()
    without_layer = {name for name, row in METHODS.items() if row.signal in ("input", "score") and not row.of_layer}
    assert set(one.methods()) == without_layer - {"smoothdiff"}  # the network has a function without a rule
    # What needs no layer is answered all the same.
    assert one.explain(IMAGES, Query("gradient"))[0].map.shape == IMAGES.shape[2:]


@pytest.mark.parametrize("name", ["vgg11", "mobilenet_v3_small"])
def test_cam_is_refused_where_no_single_linear_layer_follows_the_pooling_and_gradcam_is_named(name):
    one = Explainer(network(name), IMAGES)
    with pytest.raises(UnsuitableModel, match=r"cam is not possible: .*one linear layer; use gradcam"):
        one.explain(IMAGES, Query("cam"))


def test_cam_is_refused_at_a_layer_that_is_not_pooled():
    one = Explainer(network("resnet18"), IMAGES, layers=("layer3",))
    with pytest.raises(UnsuitableModel, match=r"'layer3' is not what the network pools .*'layer4'.*use gradcam"):
        one.check("cam")


class Twice(nn.Module):
    """One activation module used twice, before a pooling module: what is pooled is no module's only output."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 8, 3, 2)
        self.act = nn.ReLU(inplace=True)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.act(self.second(self.act(self.first(x))))
        return self.linear(self.pool(x).flatten(1))


def test_a_pooled_activation_that_is_no_modules_own_output_is_taken_at_the_poolings_input():
    net = seeded(Twice).eval()
    with torch.no_grad():
        pooled = net.second(net.first(IMAGES).relu()).relu()
        expected = torch.einsum("k,nkhw->nhw", net.linear.weight[4], pooled)
    one = Explainer(net, IMAGES)
    assert one.layer == "pool:input"
    cam = torch.stack([answer.values for answer in one.explain(IMAGES, Query("cam", target=4))])
    assert distance(cam, expected) < 1e-5
    gradcam = torch.stack([answer.values for answer in one.explain(IMAGES, Query(target=4))])
    assert distance(gradcam, expected.relu() / expected[0].numel()) < 1e-5


def test_a_layer_that_runs_twice_is_refused():
    with pytest.raises(UnsuitableModel, match="'act'"):
        Explainer(seeded(Twice), IMAGES, layers=("act",))


def test_a_layer_without_places_is_refused():
    with pytest.raises(UnsuitableModel, match=r"'heads'.*N, K, h, w"):
        Explainer(seeded(vit), pictures(1, (64, 64)), layers=("heads",))
    with pytest.raises(UnsuitableModel, match="'linear'"):
        Explainer(small(), IMAGES, layers=("linear",))


@pytest.mark.parametrize("layer", ["layer9", "trunk.0:weights", "trunk.17"])
def test_a_layer_that_does_not_exist_is_refused_by_name(layer):
    with pytest.raises(UnsuitableModel, match=layer.partition(":")[0]):
        Explainer(small(), IMAGES, layers=(layer,))


class Tuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        return self.net(x), x[:, 0, 0]


def test_a_model_that_answers_otherwise_than_with_class_scores_is_refused():
    with pytest.raises(UnsuitableModel, match="tuple"):
        Explainer(Tuple(), IMAGES)
    with pytest.raises(UnsuitableModel, match=r"not \(N, classes\)"):
        Explainer(small().trunk, IMAGES)


def test_a_layer_that_the_scores_do_not_depend_on_is_refused():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.aside, self.net = nn.Conv2d(3, 4, 3), small()

        def forward(self, x):
            self.aside(x)
            return self.net(x)

    with pytest.raises(UnsuitableModel, match="'aside' cannot be explained"):
        Explainer(Aside(), IMAGES, layers=("aside",))


def test_pooling_by_the_maximum_is_not_taken_for_pooling_by_the_mean():
    for scale in (1.0, 1e-7):
        conv = nn.Conv2d(3, 8, 3)
        conv.weight.data *= scale
        conv.bias.data *= scale
        linear = nn.Linear(8, 5)
        linear.weight.data /= scale
        net = sequential(conv=conv, relu=nn.ReLU(), pool=nn.AdaptiveMaxPool2d(1), flat=nn.Flatten(), linear=linear)
        one = Explainer(net, IMAGES)
        assert "cam" not in one.methods(), scale


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_scale_of_a_networks_activations_does_not_matter(scale):
    net = network("densenet121")
    net.features.norm5.weight.data *= scale
    net.features.norm5.bias.data *= scale
    assert "cam" in Explainer(net, IMAGES).methods()
