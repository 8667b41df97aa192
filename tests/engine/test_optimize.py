"""Folding and reordering: faster networks that compute the same, and are left as they were where they would not."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from heatserve.engine import Explainer, Query
from tests.engine.networks import (
    LAYERS,
    NAMES,
    captum_gradcam,
    captum_gradient,
    distance,
    explainer,
    network,
    oracle,
    pictures,
    seeded,
)

pytestmark = [pytest.mark.parametrize("optimize", [True], indirect=True, ids=["optimized"]), pytest.mark.fast_path]
FOLDED = {"resnet18": 20, "vgg11": 0, "densenet121": 59, "mobilenet_v2": 52, "mobilenet_v3_small": 34, "in_place": 0}


@pytest.mark.parametrize("name", NAMES)
def test_an_optimized_network_says_in_float64_what_other_libraries_say_of_the_one_as_it_was(name):
    images, one = pictures(2).double(), explainer(name, torch.float64)
    with torch.no_grad():
        assert distance(one.run(images, [[], []])[0], oracle(name, torch.float64)(images)) < 1e-12
    gradients = [answer.values for answer in one.explain(images, Query("gradient", target=3))]
    assert distance(torch.stack(gradients), captum_gradient(oracle(name, torch.float64), images, 3)) < 1e-10
    for layer in LAYERS[name]:
        maps = [answer.values for answer in one.explain(images, Query(target=3, layer=layer))]
        assert distance(torch.stack(maps), captum_gradcam(name, images, 3, layer=layer)) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_normalisation_behind_a_convolution_is_gone(name):
    # In float64: a random MobileNetV2 rounds too much in float32 for the parity that is asked for.
    one = explainer(name, torch.float64)
    left = [n for n, module in one.model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert one.optimized.folded == FOLDED[name]
    assert one.optimized.layout is torch.channels_last
    # What is left in DenseNet stands before its convolution, not behind it.
    assert len(left) == (62 if name == "densenet121" else 0)


def test_the_model_is_changed_in_place_and_never_becomes_a_second_copy():
    net = network("resnet18")
    size = sum(parameter.numel() for parameter in net.parameters())
    one = Explainer(net, pictures(2, seed=5))
    assert one.model is net
    assert sum(parameter.numel() for parameter in net.parameters()) < size
    assert not any(parameter.requires_grad for parameter in net.parameters())


class Net(nn.Module):
    """A convolution and a batch normalisation with statistics, and what stands between and around them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.norm.running_mean, self.norm.running_var = torch.randn(6), torch.rand(6) + 0.5
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.linear = nn.Linear(6, 5)

    def trunk(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.trunk(x).mean((2, 3)))


class Branching(Net):
    """What the convolution gives is used beside the batch normalisation too."""

    def trunk(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.norm(y) + 0.1 * y).relu()


class Repeated(Net):
    """The same convolution runs twice, and is normalised once."""

    def trunk(self, x: Tensor) -> Tensor:
        return (self.norm(self.conv(x)) + self.conv(x * 0.5)).relu()


class Shared(Net):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = nn.Conv2d(3, 6, 3, bias=False)
        self.twin.weight = self.conv.weight

    def trunk(self, x: Tensor) -> Tensor:
        return (self.norm(self.conv(x)) + self.twin(x)).relu()


class Stubborn(nn.Conv2d):
    """A convolution that knows better than its bias."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight)


class Ignoring(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Stubborn(3, 6, 3, bias=False)


class Viewing(Net):
    """Counts on its layout."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.trunk(x)
        return self.linear(y.view(len(y), -1).view(len(y), 6, -1).mean(2))


@pytest.mark.parametrize("build", [Branching, Repeated, Shared, Ignoring])
def test_where_a_fold_would_change_the_answer_it_is_left_or_undone(build):
    net, images = seeded(build).eval(), pictures(2)
    before, untouched = copy.deepcopy(net.state_dict()), copy.deepcopy(net)
    one = Explainer(net, images, layers=("norm",))
    assert one.optimized.folded == 0
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        assert distance(one.run(images, [[], []])[0], untouched(images)) < 1e-5


class Padded(nn.Conv2d):
    """Pads by a child of its own, as ports of TensorFlow's networks do."""

    def __init__(self, *sides: int, own: int = 0) -> None:
        super().__init__(3, 6, 3, padding=own, bias=False)
        self.pad = nn.ZeroPad2d(sides)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.pad(x), self.weight, self.bias, padding=self.padding)


class Deaf(Padded):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.pad(x), self.weight, self.bias)


@pytest.mark.parametrize(
    ("build", "padded"),
    [
        (lambda: Padded(1, 1, 2, 2), 1),
        (lambda: Padded(0, 1, 0, 1), 0),  # not alike on both sides
        (lambda: Padded(1, 1, 2, 2, own=1), 0),  # pads by itself too
        (lambda: Deaf(1, 1, 2, 2), 0),  # would not listen
    ],
)
def test_a_childs_padding_becomes_the_convolutions_where_that_changes_nothing(build, padded):
    net, images = seeded(Net).eval(), pictures(2)
    net.conv = seeded(build)
    untouched = copy.deepcopy(net)
    one = Explainer(net, images, layers=("norm",))
    assert one.optimized.padded == padded
    with torch.no_grad():
        assert distance(one.run(images, [[], []])[0], untouched(images)) < 1e-5
    theirs = captum_gradient(untouched, images, 2)
    ours = torch.stack([answer.values for answer in one.explain(images, Query("gradient", target=2))])
    assert distance(ours, theirs) < 1e-4


def test_a_network_that_counts_on_its_layout_keeps_it():
    net, images = seeded(Viewing).eval(), pictures(2)
    untouched = copy.deepcopy(net)
    one = Explainer(net, images, layers=("norm",))
    assert one.optimized == type(one.optimized)(1, torch.contiguous_format)
    assert net.conv.weight.is_contiguous()
    with torch.no_grad():
        assert distance(one.run(images, [[], []])[0], untouched(images)) < 1e-5


@pytest.mark.parametrize("layer", ["conv", "norm:input"])
def test_what_is_tapped_between_the_two_stays_what_it_was(layer):
    net, images = seeded(Net).eval(), pictures(2)
    untouched = copy.deepcopy(net)
    one = Explainer(net, images, layers=(layer,))
    assert one.optimized.folded == 0
    activation = untouched.conv(images)
    (gradient,) = torch.autograd.grad(
        untouched.linear(untouched.norm(activation).relu().mean((2, 3)))[:, 2].sum(), activation
    )
    expected = (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()
    maps = torch.stack([answer.values for answer in one.explain(images, Query(target=2))])
    assert distance(maps, expected.detach()) < 1e-5


def test_a_tap_on_the_normalisation_itself_sees_what_it_saw():
    net, images = seeded(Net).eval(), pictures(2)
    untouched = copy.deepcopy(net)
    one = Explainer(net, images, layers=("norm",))
    assert one.optimized.folded == 1
    activation = untouched.norm(untouched.conv(images)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(untouched.linear(activation.relu().mean((2, 3)))[:, 2].sum(), activation)
    expected = (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()
    maps = torch.stack([answer.values for answer in one.explain(images, Query(target=2))])
    assert distance(maps, expected.detach()) < 1e-5


@pytest.mark.parametrize("name", ["efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x0_5", "googlenet"])
def test_other_networks_predict_what_they_predicted(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    net = seeded(lambda: torchvision.models.get_model(name, num_classes=10, **options)).eval().double()
    images = pictures(2, (64, 64)).double()
    with torch.no_grad():
        expected = net(images)
    one = Explainer(net, images)
    assert one.optimized.folded > 0
    assert distance(one.run(images, [[], []])[0], expected) < 1e-10
