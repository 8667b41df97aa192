"""Packed convolutions: the same outputs and gradients as torch's own, and none where that cannot be shown."""

import copy
import io
import threading

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from heatserve.engine import Explainer, Query, packed
from heatserve.engine.packed import Geometry, Ordinary, OrdinaryGradient, prepare
from heatserve.engine.packed_layer import PackedLayer
from tests.engine.networks import distance, pictures, seeded

pytestmark = [
    pytest.mark.parametrize("optimize", [True, "packed"], indirect=True, ids=["twice", "everything"]),
    pytest.mark.fast_path,
]

#: Channels in and out, kernel, stride, padding, dilation, groups, rows and columns.
SHAPES = [
    (8, 16, (1, 1), (1, 1), (0, 0), (1, 1), 1, (7, 9)),
    (8, 16, (3, 3), (1, 1), (1, 1), (1, 1), 1, (7, 9)),
    (8, 16, (3, 3), (1, 1), (0, 0), (1, 1), 1, (7, 9)),
    (16, 8, (3, 5), (1, 1), (2, 1), (1, 1), 1, (9, 8)),
    (8, 16, (3, 3), (2, 2), (1, 1), (1, 1), 1, (8, 9)),
    (8, 16, (3, 3), (2, 1), (1, 0), (1, 1), 1, (9, 8)),
    (8, 16, (1, 1), (2, 2), (0, 0), (1, 1), 1, (8, 9)),
    (8, 16, (1, 1), (1, 1), (1, 1), (1, 1), 1, (5, 5)),
    (8, 16, (3, 3), (1, 1), (2, 2), (2, 2), 1, (9, 11)),
    (8, 16, (3, 3), (3, 3), (2, 3), (2, 3), 1, (14, 15)),
    (3, 16, (7, 7), (2, 2), (3, 3), (1, 1), 1, (16, 17)),
    (3, 16, (3, 3), (2, 2), (1, 1), (1, 1), 1, (11, 10)),
    (3, 16, (3, 3), (2, 2), (0, 0), (1, 1), 1, (10, 11)),
    (3, 16, (4, 4), (4, 4), (0, 0), (1, 1), 1, (18, 19)),
    (3, 16, (2, 3), (3, 3), (0, 1), (1, 1), 1, (13, 14)),
    (1, 4, (5, 3), (2, 2), (2, 1), (1, 1), 1, (11, 12)),
    (4, 4, (3, 3), (2, 2), (1, 1), (2, 2), 1, (11, 12)),
    (16, 16, (3, 3), (1, 1), (1, 1), (1, 1), 16, (7, 9)),
    (16, 16, (5, 5), (2, 2), (2, 2), (1, 1), 16, (9, 8)),
    (8, 16, (3, 3), (1, 1), (1, 1), (1, 1), 8, (7, 7)),
    (16, 32, (3, 3), (2, 2), (1, 1), (1, 1), 4, (9, 9)),
    (17, 33, (3, 3), (1, 1), (1, 1), (1, 1), 1, (1, 1)),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_convolution_and_its_gradient_are_torchs(shape, bias, layout):
    into, out, kernel, stride, padding, dilation, groups, places = shape
    torch.manual_seed(1)
    weight = torch.randn(out, into // groups, *kernel)
    shift = torch.randn(out) if bias else None
    typical = torch.randn(2, into, *places)
    steps = stride, padding, dilation, groups
    ours = prepare(weight, Geometry(*steps), typical.shape, functional.conv2d(typical, weight, None, *steps).shape)
    assert ours is not None and torch.equal(ours.weight.to_dense(), weight)
    for batch, more in ((1, 0), (3, 0), (2, 3)):  # packed for one size, it takes others
        x = torch.randn(batch, into, places[0] + more, places[1] + more).contiguous(memory_format=layout)
        one, other = x.clone().requires_grad_(), x.double().requires_grad_()
        y = ours(one, shift)
        expected = functional.conv2d(other, weight.double(), None if shift is None else shift.double(), *steps)
        assert y.dtype == torch.float32 and distance(y.double(), expected) < 2e-6
        assert torch.equal(ours(x, shift), y)
        towards = torch.randn_like(y)
        for direction in (towards, towards.contiguous(memory_format=layout), torch.ones(1).expand(y.shape)):
            found = torch.autograd.grad(y, one, direction, retain_graph=True)[0]
            known = torch.autograd.grad(expected, other, direction.double(), retain_graph=True)[0]
            assert found.dtype == torch.float32 and distance(found.double(), known) < 2e-6


def test_second_derivatives_are_torchs():
    weight, x = torch.randn(4, 8, 3, 3), torch.randn(1, 8, 5, 5, requires_grad=True)
    ours = prepare(weight, Geometry((1, 1), (1, 1), (1, 1), 1), x.shape, (1, 4, 5, 5))
    found = []
    for convolve in (lambda y: ours(y, None), lambda y: functional.conv2d(y, weight, None, 1, 1)):
        first = torch.autograd.grad(convolve(x).pow(3).sum(), x, create_graph=True)[0]
        second = torch.autograd.grad(first.pow(2).sum(), x, create_graph=True)[0]
        found.append([first, second, torch.autograd.grad(second.pow(2).sum(), x)[0]])
    assert all(distance(one, other) < 1e-5 for one, other in zip(*found))


def _lite() -> nn.Module:
    network = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    return network.from_name("efficientnet-lite0", num_classes=10)


NETWORKS = {
    "efficientnet-lite0": _lite,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=10),
    "squeezenet1_1": lambda: torchvision.models.squeezenet1_1(num_classes=10),
    "vgg11": lambda: torchvision.models.vgg11(num_classes=10),
    "resnext50": lambda: torchvision.models.resnext50_32x4d(num_classes=10),
}
#: Convolutions in one group or one for each channel; ResNeXt has 16 others.
PACKED = {
    "efficientnet-lite0": 44,
    "resnet18": 20,
    "resnet50": 53,
    "mobilenet_v3_small": 52,
    "densenet121": 120,
    "squeezenet1_1": 26,
    "vgg11": 8,
    "resnext50": 37,
}
SIDE = 96


def view(count: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(count, 3, SIDE, SIDE)


def explained(net: nn.Module, **settings) -> Explainer:
    how = settings.pop("how", Explainer.__init__.__kwdefaults__["optimize"])
    return Explainer(net, view(1, seed=5), optimize=how, **settings)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_packed_network_answers_as_the_network_as_it_was(name):
    net = seeded(NETWORKS[name]).eval()
    untouched = copy.deepcopy(net).double().requires_grad_(False)
    one = explained(net)
    assert one.optimized.packed == PACKED[name]
    for images in (view(1), view(3, seed=2)):
        with torch.no_grad():
            expected = untouched(images.double())
        scores, _ = one.run(images, [[] for _ in images])
        assert distance(scores.double(), expected) < 2e-5
        gradients = torch.stack([answer.values for answer in one.explain(images, Query("gradient", target=3))]).double()
        leaf = images.double().requires_grad_()
        known = torch.autograd.grad(untouched(leaf)[:, 3].sum(), leaf)[0]
        # Rounding turns single ReLUs over. A gradient that were wrong in one layer would be far off.
        assert (gradients - known).norm() < 0.02 * known.norm()


def test_maps_do_not_depend_on_the_batch():
    one, images = explained(seeded(NETWORKS["resnet18"])), view(3)
    for query in (Query(target=1), Query("gradient", target=1), Query("smoothgrad", target=1, samples=5)):
        together = one.explain(images, query)
        alone = [one.explain(image[None], query)[0] for image in images]
        assert all(distance(a.values, b.values) < 1e-5 for a, b in zip(together, alone))


def test_names_and_numbers_of_the_model_stay_and_close_gives_its_weights_back():
    net = seeded(NETWORKS["resnet18"]).eval()
    one = explained(net, how="folded")
    before, classes = copy.deepcopy(net.state_dict()), [type(module) for module in net.modules()]
    one.close()
    one = explained(net)
    assert one.optimized.packed == 20
    assert isinstance(net.conv1, nn.Conv2d) and net.conv1.weight.shape == (64, 3, 7, 7)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.state_dict().keys() == before.keys() == dict(net.state_dict()).keys()
    # The weight that modules hold is the packed one, and no other.
    held = {name: parameter.layout for name, parameter in net.named_parameters() if parameter.ndim == 4}
    assert len(held) == 20 and set(held.values()) == {torch._mkldnn}
    one.close()
    assert [type(module) for module in net.modules()] == classes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.fc.parameters())
    assert not any("_packed" in module.__dict__ for module in net.modules())
    assert net.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_weights_cannot_be_changed_unseen():
    net = seeded(NETWORKS["resnet18"]).eval()
    state = copy.deepcopy(explained(net, how="folded").model.state_dict())
    one, images = explained(net), view(1)
    with pytest.raises(RuntimeError):
        net.load_state_dict(state)
    net.conv1.weight = nn.Parameter(torch.zeros_like(net.conv1.weight), requires_grad=False)
    scores, _ = one.run(images, [[]])
    net.conv1.weight.data += 1
    assert not torch.equal(one.run(images, [[]])[0], scores)


def test_another_weight_is_used_under_autocast_too():
    net = seeded(NETWORKS["resnet18"]).eval()
    one, images = explained(net, precision="bfloat16"), view(1)
    net.conv1.weight = nn.Parameter(torch.zeros_like(net.conv1.weight), requires_grad=False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not net.conv1(images).sub(net.conv1.bias.view(-1, 1, 1)).abs().gt(0.01).any()
    one.close()


def test_copies_share_packed_weights_and_files_hold_ordinary_convolutions():
    net, images = seeded(NETWORKS["resnet18"]).eval(), view(1)
    one = explained(net)
    other = copy.deepcopy(net)
    assert other.conv1._parameters["weight"] is net.conv1._parameters["weight"]
    file = io.BytesIO()
    torch.save(net.conv1, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert type(loaded) is nn.Conv2d and torch.equal(loaded.weight, net.conv1.weight)
    with torch.no_grad():
        expected = net(images)
        one.close()
        assert torch.equal(other(images), expected)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet-lite0", "densenet121"])
def test_the_default_takes_no_more_than_twice_the_memory_of_the_weights(name):
    net = seeded(NETWORKS[name]).eval()
    weights = sum(parameter.numel() for parameter in net.parameters())
    one = explained(net, how=True)
    layers = [module for module in net.modules() if isinstance(module, PackedLayer)]
    assert one.optimized.packed == PACKED[name] == len(layers)
    held = sum(layer._packed.weight.numel() + layer._several.weight.numel() for layer in layers)
    gradients = [layer._packed.gradient for layer in layers]
    held += sum(one.weight.numel() for one in gradients if not isinstance(one, OrdinaryGradient))
    others = (p for module in net.modules() for p in module._parameters.values() if p is not None)
    held += sum(p.numel() for p in others if p.layout == torch.strided)
    assert held <= 2 * weights
    # The first gradients of the pass are packed; their weights are small, and their images are large.
    assert not isinstance(gradients[0], OrdinaryGradient)
    assert all(isinstance(layer._several, Ordinary) for layer in layers)


def test_folds_alone_pack_nothing_and_other_words_are_refused():
    assert explained(seeded(NETWORKS["resnet18"]), how="folded").optimized.packed == 0
    assert explained(seeded(NETWORKS["resnet18"]), how=False).optimized.packed == 0
    with pytest.raises(ValueError, match="optimize is 'pack'; allowed"):
        explained(seeded(NETWORKS["resnet18"]), how="pack")


def test_a_network_in_float64_packs_nothing():
    net = seeded(NETWORKS["resnet18"]).double()
    assert Explainer(net, view(1).double()).optimized.packed == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pass_under_autocast_goes_the_ordinary_way(precision):
    net, images = seeded(NETWORKS["resnet18"]).eval(), view(2)
    one = explained(net, precision=precision)
    assert one.optimized.packed == 20
    assert net.conv1.weight.dtype == net.state_dict()["conv1.weight"].dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = net(images)
        one.close()
        expected = net(images)
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected)


@pytest.mark.parametrize(
    ("missing", "count"),
    # The gradient in an input of three channels is computed by phases, which need no transposed convolution.
    [("_reorder_convolution_weight", 0), ("_convolution_pointwise", 0), ("_convolution_transpose_pointwise", 1)],
)
def test_where_an_operator_is_missing_nothing_that_needs_it_is_packed(missing, count, monkeypatch):
    class Without:
        def __getattr__(self, name):
            if name == missing:
                raise AttributeError(name)
            return getattr(torch.ops.mkldnn, name)

    class Operators:
        mkldnn, aten = Without(), torch.ops.aten

    class Torch:
        ops = Operators()

        def __getattr__(self, name):
            return getattr(torch, name)

    net = seeded(NETWORKS["resnet18"]).eval()
    untouched = copy.deepcopy(net)
    monkeypatch.setattr(packed, "torch", Torch())
    one, images = explained(net), view(1)
    assert one.optimized.packed == count and one.optimized.folded == 20
    with torch.no_grad():
        assert distance(one.run(images, [[]])[0], untouched(images)) < 1e-5


def test_a_convolution_whose_operator_is_wrong_is_left_and_others_are_packed(monkeypatch):
    right = Geometry.convolve

    def wrong(self, x, weight, bias):
        found = right(self, x, weight, bias)
        return found * 1.01 if self.stride == (2, 2) else found

    monkeypatch.setattr(Geometry, "convolve", wrong)
    assert explained(seeded(NETWORKS["resnet18"])).optimized.packed == 13


def test_a_gradient_that_is_wrong_is_seen(monkeypatch):
    right = packed.Transposed.__call__

    def wrong(self, gradient, size):
        return right(self, gradient, size).flip(3)

    monkeypatch.setattr(packed.Transposed, "__call__", wrong)
    # The first convolution has three channels, and its gradient is computed by phases.
    assert explained(seeded(NETWORKS["resnet18"])).optimized.packed == 1


@pytest.mark.parametrize("mode", ["no graph", "graph"])
def test_packings_are_undone_where_the_whole_network_then_differs(mode, monkeypatch):
    """An operator that is right in small, and wrong on the activations of the network."""
    right = packed.Packed.__call__

    def wrong(self, x, bias):
        found = right(self, x, bias)
        large = min(x.shape[2:]) > 20 and x.requires_grad == (mode == "graph")
        return found.flip(3) if large else found

    monkeypatch.setattr(packed.Packed, "__call__", wrong)
    net = seeded(NETWORKS["resnet18"]).eval()
    one = explained(net)
    assert one.optimized.packed == 0 and one.optimized.folded == 20
    assert all(type(module) is nn.Conv2d for module in net.modules() if isinstance(module, nn.Conv2d))


class Own(nn.Conv2d):
    """Convolves as torch does, in a forward of its own, with its stride in a list."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.stride = [1, 1]

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, self.stride)


class Even(nn.Conv2d):
    """Pads inputs of odd sizes, as ports of TensorFlow's networks do at run time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Twice(nn.Module):
    """Two convolutions with one weight, and one whose weight is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.two.weight = self.one.weight
        self.three = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.three(self.two(self.one(x)))


class Net(nn.Module):
    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = first, nn.BatchNorm2d(6)
        self.second, self.linear = nn.Conv2d(6, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("first", "count"),
    [
        (lambda: Own(3, 6, 3), 2),
        (lambda: Even(3, 6, 3), 1),
        (lambda: Standardised(3, 6, 3), 1),
        (lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), 1),
        (lambda: nn.Conv2d(3, 6, 3, padding="same"), 1),
        (Twice, 1),
    ],
)
def test_only_what_is_an_ordinary_convolution_is_packed(first, count):
    net, images = seeded(lambda: Net(first())).eval(), pictures(2)
    untouched = copy.deepcopy(net)
    one = Explainer(net, images)
    assert one.optimized.packed == count
    with torch.no_grad():
        for asked in (images, images[:, :, 1:, 1:], images[:, :, 1:]):
            assert distance(one.model(asked), untouched(asked)) < 1e-5
    one.close()
    assert type(net.first) is type(untouched.first)


LAYERS = ("layer4", "layer2.0.conv1", "layer2.0.bn1", "layer2.0.conv1:input", "conv1", "relu")


def test_taps_inside_record_the_same_activations_and_gradients():
    net = seeded(NETWORKS["resnet18"]).eval()
    plain = explained(copy.deepcopy(net), layers=LAYERS, how=False)
    one, images = explained(net, layers=LAYERS), view(2)
    assert one.optimized.packed == 20
    for layer in LAYERS:
        for ours, theirs in zip(*(e.explain(images, Query(target=2, layer=layer)) for e in (one, plain))):
            assert distance(ours.values, theirs.values) < 1e-3


def test_guided_backpropagation_is_that_of_the_network_as_it_was():
    net, images = seeded(NETWORKS["resnet18"]).eval(), view(2)
    plain, one = explained(copy.deepcopy(net), how="folded"), explained(net)
    query = Query("guided_backpropagation", target=2)
    for ours, theirs in zip(one.explain(images, query), plain.explain(images, query)):
        assert (ours.values - theirs.values).norm() < 0.02 * theirs.values.norm()


def test_threads_may_share_a_packed_network():
    net, images = seeded(NETWORKS["resnet18"]).eval(), [view(1, seed=seed) for seed in range(4)]
    explained(net)
    found: dict[int, Tensor] = {}

    def gradient(number: int) -> Tensor:
        leaf = images[number].clone().requires_grad_()
        return torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0]

    threads = [threading.Thread(target=lambda n=n: found.update({n: gradient(n)})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(distance(found[number], gradient(number)) < 1e-5 for number in range(4))


def test_two_explainers_may_share_a_packed_network():
    net, images = seeded(NETWORKS["resnet18"]).eval(), view(1)
    one, two = explained(net), explained(net)
    assert (one.optimized.packed, two.optimized.packed) == (20, 0)
    scores, _ = two.run(images, [[]])
    one.close()
    assert distance(two.run(images, [[]])[0], scores) < 1e-5
    assert PackedLayer not in {base for module in net.modules() for base in type(module).mro()}


def test_a_packed_weight_refuses_a_change_that_would_be_lost() -> None:
    model = torchvision.models.resnet18().eval()
    Explainer(model, torch.rand(1, 3, 64, 64))
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        nn.init.zeros_(model.conv1.weight)


@pytest.mark.parametrize("graph", [True, False])
def test_a_forward_derivative_is_not_lost(graph: bool) -> None:
    """The operators have no forward derivative, and say nothing: the result would have a derivative of 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.LazyLinear(4))
    image, direction = torch.rand(2, 1, 3, 16, 16).unbind()
    model(image)
    leaf = image.clone().requires_grad_()
    model.eval().requires_grad_(False)
    (gradient,) = torch.autograd.grad(model(leaf)[0, 2], leaf)
    one = Explainer(model, image.clone())
    assert one.optimized.packed == 2
    with torch.set_grad_enabled(graph):
        _, found = torch.func.jvp(lambda x: model(x)[0, 2], (image,), (direction,))
    assert float(found) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
    assert abs(float(found)) > 1e-3
