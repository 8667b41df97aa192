"""Noisy copies in fewer bits: what that changes, and what it must not touch."""

import pytest
import torch
from torch import nn

from heatserve.engine import PRECISIONS, Explainer, Query, UnsuitableModel
from tests.engine.networks import captum_gradcam, captum_gradient, distance, network, oracle, pictures, small
from tests.engine.test_smoothing import copies

FEW_BITS = [name for name, dtype in PRECISIONS.items() if dtype != torch.float32]
#: Relative to the whole map, L2. bfloat16 has 8 bits, float16 has 11; what counts is how often a rectifier flips.
FAR = {"bfloat16": 0.4, "float16": 0.15}


@pytest.mark.parametrize("precision", FEW_BITS)
@pytest.mark.parametrize("method", ["smoothgrad", "gradcam"])
def test_a_smoothed_map_in_fewer_bits_is_near_captums_in_float32(precision, method):
    image = pictures(1)
    one = Explainer(network("resnet18"), pictures(2, seed=5), precision=precision)
    (found,) = one.explain(image, Query(method, target=1, samples=6, seed=3))
    assert found.values.dtype is torch.float32 and one.model.conv1.weight.dtype is torch.float32
    noisy = copies(image, 6, seed=3)
    captum = (
        captum_gradient(oracle("resnet18"), noisy, 1)
        if method == "smoothgrad"
        else captum_gradcam("resnet18", noisy, 1)
    )
    theirs = captum.mean(0)
    error = float((found.values - theirs).norm() / theirs.norm())
    assert 1e-5 < error < FAR[precision]


@pytest.mark.parametrize("precision", FEW_BITS)
def test_predictions_and_unsmoothed_maps_are_equal_to_the_bit(precision):
    images, queries = pictures(2), [[Query(), Query("gradient")], [Query("cam", rank=1)]]
    scores, maps = Explainer(small(), pictures(2)).run(images, queries)
    other = Explainer(small(), pictures(2), precision=precision).run(images, queries)
    assert torch.equal(scores, other[0])
    for row, same_row in zip(maps, other[1]):
        assert all(torch.equal(one.values, same.values) for one, same in zip(row, same_row))


def test_gradients_that_float16_could_not_hold_are_scaled_and_scaled_back():
    # Each layer's weight is a float16; their product, which is the gradient, is not.
    net, image = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 72, 1), nn.Linear(1, 4)), pictures(1)
    for layer in (net[1], net[2]):
        layer.weight.data.fill_(1e-4)
    (found,) = Explainer(net, image, precision="float16").explain(image, Query("smoothgrad", target=2, samples=2))
    assert distance(found.values, torch.full_like(found.values, 1e-8)) < 0.01


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="there is no precision 'int8'; there are: float32"):
        Explainer(small(), pictures(2), precision="int8")


def products(*weights):
    """A network whose gradient is the product of its layers' weights, the same everywhere."""
    layers = [nn.Linear(3 * 40 * 72, 1), *(nn.Linear(1, 1) for _ in weights[2:]), nn.Linear(1, 4)]
    for layer, weight in zip(layers, weights):
        layer.weight.data.fill_(weight)
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize("weights", [(1e-4, 1e-4), (1e-5, 1e-2, 1e-1), (30.0, 100.0), (300.0, 0.01, 50.0)])
def test_the_scale_of_float16_is_chosen_for_each_network(weights):
    image = pictures(1)
    (found,) = Explainer(products(*weights), pictures(2), precision="float16").explain(
        image, Query("smoothgrad", target=2, samples=2)
    )
    expected = float(torch.tensor(weights, dtype=torch.float64).prod())
    assert distance(found.values, torch.full_like(found.values, expected)) < 0.02


def test_a_network_whose_gradients_overflow_in_float16_is_refused_at_load():
    with pytest.raises(UnsuitableModel, match="overflow in float16; use bfloat16 or float32"):
        Explainer(products(1e5, 1.0), pictures(2), precision="float16")
    Explainer(products(1e5, 1.0), pictures(2), precision="bfloat16")


@pytest.mark.parametrize("weights", [(1e-6, 1e-6), (1e-3, 1e-3, 1e-3, 1e-3)])
def test_a_network_whose_gradients_vanish_in_float16_is_refused_at_load(weights):
    with pytest.raises(UnsuitableModel, match=r"lost in float16, .*; use bfloat16 or float32"):
        Explainer(products(*weights), pictures(2), precision="float16")
    for fits in ("bfloat16", "float32"):
        (found,) = Explainer(products(*weights), pictures(2), precision=fits).explain(
            pictures(1), Query("smoothgrad", target=2, samples=2)
        )
        assert distance(found.values, torch.full_like(found.values, 1e-12)) < 0.02


def test_a_network_that_loses_part_of_a_gradient_in_float16_is_refused_at_load():
    """The smallest number is 2^-24: one colour has less than half of that as its weight, 3.5 % of the whole, L2."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 72, 4, bias=False), nn.Linear(4, 4))
    colours = torch.tensor([10.0, 0.49, 10.0]) * 2**-24
    net[1].weight.data.copy_(torch.ones(4, 3, 40, 72).mul_(colours.view(3, 1, 1)).flatten(1))
    net[2].weight.data.copy_(torch.eye(4))
    with pytest.raises(UnsuitableModel, match="lost in float16"):
        Explainer(net, pictures(2), precision="float16")


def test_a_network_that_loses_the_gradient_of_one_class_in_float16_is_refused_at_load():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 72, 1), nn.Linear(1, 4))
    net[1].weight.data.fill_(1e-3)
    net[2].weight.data.copy_(torch.tensor([[1.0], [1.0], [1.0], [1e-12]]))
    with pytest.raises(UnsuitableModel, match="lost in float16"):
        Explainer(net, pictures(2), precision="float16")


@pytest.mark.parametrize(("precision", "reached"), [("float16", False), ("bfloat16", True), ("float32", True)])
def test_a_map_of_zeros_has_reached_nothing_where_small_gradients_are_zeros(precision, reached):
    one = Explainer(small(), pictures(2), precision=precision)
    one.model.linear.weight.data.zero_()
    query = Query("smoothgrad", target=2, samples=12, standard_error=9.0)
    (found,) = one.explain(pictures(1), query)
    assert float(found.values.abs().max()) == 0 and found.reached is reached
    assert float(found.relative_error) == (0 if reached else float("inf"))


def test_a_network_that_does_not_run_in_fewer_bits_is_refused_at_load():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3 * 40 * 72, 4)

        def forward(self, x):
            scores = torch.zeros(len(x), 4)
            scores[torch.arange(len(x))] = self.linear(x.flatten(1))
            return scores

    with pytest.raises(UnsuitableModel, match="does not run in precision bfloat16"):
        Explainer(Picky(), pictures(2), precision="bfloat16")
