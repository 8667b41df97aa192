"""Guided backpropagation and guided Grad-CAM against Captum and pytorch-grad-cam, row by row in mixed batches."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, GuidedGradCam
from pytorch_grad_cam import GuidedBackpropReLUModel
from torch import Tensor, nn
from torch.nn import functional

from heatserve.engine import METHODS, Explainer, Method, Query, UnsuitableModel, register
from tests.engine.networks import (
    LAYERS,
    captum_gradcam,
    captum_gradient,
    distance,
    explainer,
    network,
    oracle,
    pictures,
    small,
)

NETWORKS = ("resnet18", "vgg11", "densenet121", "mobilenet_v2")
IMAGES = pictures(3, (24, 36), seed=8)
DOUBLE = torch.float64
ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])
GUIDED, PRODUCT = "guided_backpropagation", "guided_gradcam"


class Apart(nn.Module):
    """A ReLU6 as a ReLU, which libraries know, and a minimum."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x).clamp(max=6)


class Difference(nn.Module):
    """The difference of two scores of a network, (N, 1)."""

    def __init__(self, net: nn.Module, target: int, contrast: int | None) -> None:
        super().__init__()
        self.net, self.target, self.contrast = net, target, contrast

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        return (y[:, self.target] - (0 if self.contrast is None else y[:, self.contrast]))[:, None]


def parts_of(name: str) -> nn.Module:
    """The oracle of a network; its ReLU6 are made of a ReLU and a minimum."""
    net = copy.deepcopy(oracle(name, DOUBLE))
    for module in [*net.modules()]:
        for child, of in [*module.named_children()]:
            if isinstance(of, nn.ReLU6):
                setattr(module, child, Apart())
    return net


def captums(name: str, image: Tensor, target: int, contrast: int | None = None) -> Tensor:
    net = Difference(parts_of(name), target, contrast)
    return GuidedBackprop(net).attribute(image[None].clone().requires_grad_(), target=0)[0].detach()


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("name", NETWORKS)
def test_guided_rows_of_a_mixed_batch_are_captums_and_ordinary_rows_stay_ordinary(name: str) -> None:
    images = pictures(4).double()
    asked = [
        [Query(GUIDED, target=1), Query("gradient", target=1)],
        [Query("gradient", target=4), Query("gradcam", target=4)],
        [Query("gradcam", target=0, layer=LAYERS[name][1]), Query(GUIDED, target=6, contrast=2)],
        [Query("gradient", target=3), Query(GUIDED, target=3), Query(GUIDED, target=5), Query("gradient", target=5)],
    ]
    _, found = explainer(name, DOUBLE).run(images, asked)
    for row, queries in enumerate(asked):
        for query, answer in zip(queries, found[row]):
            image, target = images[row], query.target
            assert target is not None
            if query.method == GUIDED:
                theirs = captums(name, image, target, query.contrast)
            elif query.method == "gradient":
                theirs = captum_gradient(oracle(name, DOUBLE), image[None], target)[0]
            else:
                theirs = captum_gradcam(name, image[None], target, layer=query.layer or "")[0]
            assert distance(answer.values, theirs) < 1e-9, (row, query)
    ordinary = captum_gradient(oracle(name, DOUBLE), images[:1], 1)[0]
    assert distance(found[0][0].values, ordinary) > 0.1


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_guided_gradcam_is_captums_row_by_row_in_a_mixed_batch(name: str) -> None:
    images, (last, earlier) = pictures(3).double(), LAYERS[name]
    asked = [
        [Query(PRODUCT, target=1), Query("gradcam", target=2)],
        [Query("gradient", target=4)],
        [Query(GUIDED, target=6), Query(PRODUCT, target=6, layer=earlier), Query("gradcam", target=6, layer=earlier)],
    ]
    _, found = explainer(name, DOUBLE).run(images, asked)
    for row, number, target, layer in ((0, 0, 1, last), (2, 1, 6, earlier)):
        net = parts_of(name)
        method = GuidedGradCam(net, net.get_submodule(layer))
        image = images[row : row + 1].clone().requires_grad_()
        theirs = method.attribute(image, target=target, interpolate_mode="bilinear")[0].detach()
        assert theirs.abs().max() > 0 and distance(found[row][number].values, theirs) < 1e-9
        assert distance(found[row][number].map, theirs.abs().amax(0)) < 1e-9
        assert found[row][number].query == asked[row][number]
    assert distance(found[2][2].values, captum_gradcam(name, images[2:], 6, layer=earlier)[0]) < 1e-9
    assert distance(found[1][0].values, captum_gradient(oracle(name, DOUBLE), images[1:2], 4)[0]) < 1e-9


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_guided_backpropagation_is_pytorch_grad_cams(name: str) -> None:
    image = pictures(1)
    net = copy.deepcopy(oracle(name)).requires_grad_(True)
    theirs = GuidedBackpropReLUModel(net, "cpu")(image.clone(), target_category=3)
    (ours,) = explainer(name).explain(image, Query(GUIDED, target=3))
    assert distance(ours.values, torch.from_numpy(np.ascontiguousarray(theirs.transpose(2, 0, 1)))) < 1e-5


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("method", [GUIDED, PRODUCT])
def test_a_smoothed_one_is_the_mean_over_noisy_copies(method: str) -> None:
    one, query = explainer("resnet18", DOUBLE), Query(method, target=2, samples=3, seed=5)
    (found,) = one.explain(pictures(1).double(), query)
    copies = METHODS[method].drawn.of(pictures(1)[0].double(), query.sampling).draw(0, 3)
    theirs = torch.stack([captums("resnet18", copy, 2) for copy in copies])
    if method == PRODUCT:
        cams = captum_gradcam("resnet18", copies, 2)
        theirs = theirs * functional.interpolate(cams[:, None], theirs.shape[2:], mode="bilinear")
    assert distance(found.values, theirs.mean(0).float()) < 1e-6 and found.samples_used == 3


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": functional.relu,
    "F.relu in place": lambda x: functional.relu(x, inplace=True),
    "F.relu_": functional.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "in place, what it gives is left": lambda x: (x.relu_(), x)[1],
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(True),
    "of a kind of its own": type("Own", (nn.ReLU,), {})(),
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(True),
    "F.relu6": functional.relu6,
    "F.hardtanh": lambda x: functional.hardtanh(x, 0.0, 1e9),
    "torch.clamp": lambda x: torch.clamp(x, min=0),
    "Tensor.clamp_": lambda x: x.clamp_(0),
    "Tensor.clamp_min": lambda x: x.clamp_min(0),
    "Tensor.clip": lambda x: x.clip(min=0.0),
    "F.threshold": lambda x: functional.threshold(x, 0, 0),
    "nn.Threshold": nn.Threshold(0, 0),
}


class Written(nn.Module):
    """`Small` with its activations written in another way."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.way = small(), way

    def forward(self, x: Tensor) -> Tensor:
        x = self.way(self.net.trunk[0](x))
        x = self.way(self.net.trunk[2](x))
        return self.net.linear(self.net.pool(x).flatten(1))


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_a_relu_follows_the_rule(way: str) -> None:
    net = small(activation=Apart if "6" in way else nn.ReLU)
    theirs = GuidedBackprop(net).attribute(IMAGES.clone().requires_grad_(), target=2).detach()
    one = Explainer(Written(WAYS[way]).eval(), IMAGES)
    for found, expected in zip(one.explain(IMAGES, Query(GUIDED, target=2)), theirs):
        assert distance(found.values, expected) < 1e-5


@pytest.mark.parametrize("activation", [nn.GELU, nn.Tanh, nn.LeakyReLU, nn.Hardtanh])
def test_a_network_without_any_relu_is_refused_with_the_way_out(activation: type[nn.Module]) -> None:
    one = Explainer(small(activation=activation), IMAGES)
    for method in (GUIDED, PRODUCT):
        with pytest.raises(UnsuitableModel, match=r"no ReLU, .* use gradient or integrated_gradients"):
            one.check(method)
        assert method not in one.methods()
    assert "gradient" in one.methods()


@ONCE
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_network_whose_relus_are_hidden_is_refused_with_the_way_out() -> None:
    net = small()
    net.trunk = torch.jit.script(net.trunk)
    for model in (net, torch.compile(small(), backend="eager")):
        with pytest.raises(UnsuitableModel, match=r"hides its ReLUs; use gradient or integrated_gradients"):
            Explainer(model, IMAGES).check(GUIDED)  # type: ignore[arg-type]


def test_one_forward_pass_serves_ordinary_and_guided_rows_and_leaves_nothing_behind() -> None:
    net = network("resnet18")
    one = Explainer(net, pictures(2, seed=5))
    rows: list[int] = []
    handle = net.register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    images = pictures(2)
    before = one.run(images, [[Query("gradient", target=1)]] * 2)
    rows.clear()
    one.run(images, [[Query("gradient", target=1), Query(GUIDED, target=1)], [Query(PRODUCT, target=2)]])
    assert rows == [2]
    handle.remove()
    with pytest.raises(RuntimeError):
        one.run(images[:, :2], [[Query(GUIDED, target=1)]] * 2)
    after = one.run(images, [[Query("gradient", target=1)]] * 2)
    assert torch.equal(before[0], after[0])
    assert all(torch.equal(one[0].values, other[0].values) for one, other in zip(before[1], after[1]))
    assert not any(module._backward_hooks or module._backward_pre_hooks for module in net.modules())
    assert type(torch.relu(torch.ones(1, requires_grad=True)).grad_fn).__name__ == "ReluBackward0"
    assert torch.relu(torch.ones(1, requires_grad=True))._backward_hooks is None


@ONCE
def test_the_cost_counts_both_backward_passes() -> None:
    assert (Query(GUIDED).price, Query(GUIDED).work, Query(PRODUCT).price, Query(PRODUCT).work) == (3, 3, 5, 5)
    assert Query(PRODUCT, samples=4).work == 20 and Query(PRODUCT).through_input


@ONCE
def test_rows_that_no_query_could_be_answered_by_are_refused() -> None:
    guided, product = METHODS[GUIDED], METHODS[PRODUCT]

    def row(of: Method, **changed: object) -> Method:
        return Method(**{**vars(of), "name": "other", **changed})  # type: ignore[arg-type]

    for refused, words in (
        (row(guided, rule="deconvolution"), "rule must be one of: guided"),
        (row(guided, signal="layer"), "belongs to a method of the input"),
        (row(product, factors=("gradcam", "nothing")), "factors are methods that are there"),
        (row(product, factors=("gradcam", PRODUCT)), "factors are methods that are there"),
        (row(product, factors=("gradcam", "smoothgrad")), "factors are methods that are there"),
        (row(product, factors=("gradcam", "vargrad")), "factors are methods that are there"),
        (row(product, factors=("gradcam", "integrated_gradients")), "factors are methods that are there"),
    ):
        with pytest.raises(ValueError, match=words):
            register(refused)
        assert "other" not in METHODS
