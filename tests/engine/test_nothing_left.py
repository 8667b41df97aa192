"""An explanation leaves the model, the process and its memory as they were."""

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from heatserve.engine import Explainer, Query, UnsuitableModel
from tests.engine.networks import explainer, network, pictures, small

EVERYTHING = [
    [],
    [Query(), Query("cam", rank=1)],
    [Query("gradient"), Query(layer="3", target=1)],
    [Query(layer="2", contrast=4)],
]

#: What is equal to the bit is so where nothing is optimized.
AS_IT_IS = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])


def everything(one, images):
    """One mixed batch and one smoothing of each kind, answers dropped."""
    one.run(images, EVERYTHING)
    for method in ("smoothgrad", "vargrad", "gradcam", "cam"):
        one.explain(images[:1], Query(method, samples=5))


def tapped():
    return Explainer(network("in_place"), pictures(1), layers=("3", "2"))


def live_tensors():
    gc.collect()
    return [one for one in gc.get_objects() if issubclass(type(one), Tensor)]


def test_parameters_carry_no_gradients_and_their_values_stay():
    net = network("in_place")
    before = copy.deepcopy(net.state_dict())
    everything(Explainer(net, pictures(1), layers=("3", "2")), pictures(4))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in net.parameters())
    assert not net.training
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_images_are_not_changed_and_carry_no_graph():
    images = pictures(4)
    before = images.clone()
    everything(tapped(), images)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert images.grad is None


def test_no_tensor_outlives_its_answer():
    one, images = tapped(), pictures(4)
    everything(one, images)
    before = len(live_tensors())
    for _ in range(3):
        everything(one, images)
    assert len(live_tensors()) == before


@pytest.mark.parametrize("kinds", [slice(0, 2), slice(0, 4)], ids=["closed form", "graph"])
def test_activations_die_with_the_call_without_waiting_for_the_collector(kinds):
    one, images = tapped(), pictures(4)
    born = []
    handles = [
        module.register_forward_hook(lambda _m, _i, output: born.append(weakref.ref(output)))
        for module in one.model.modules()
    ]
    gc.disable()
    try:
        logits, answers = one.run(images[kinds], EVERYTHING[kinds])
        alive = [ref() for ref in born if ref() is not None]
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()
    assert born
    assert all(tensor is logits for tensor in alive)
    answered = [answer.values for row in answers for answer in row]
    assert all(not tensor.requires_grad and tensor.grad_fn is None for tensor in [logits, *answered])


@AS_IT_IS
def test_a_plain_prediction_equals_the_untouched_models_to_the_bit():
    for name in ("resnet18", "mobilenet_v2", "in_place"):
        images = pictures(3)
        with torch.no_grad():
            expected = network(name)(images)
        logits, _ = explainer(name).run(images, [[], [], []])
        assert torch.equal(logits, expected)
        assert logits.is_inference()


@AS_IT_IS
def test_a_prediction_equals_the_untouched_models_to_the_bit_after_explanations_too():
    one, images = tapped(), pictures(4)
    with torch.no_grad():
        expected = network("in_place")(images)
    everything(one, images)
    assert torch.equal(one.run(images, [[]] * 4)[0], expected)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.fails = False

    def forward(self, x):
        if self.fails:
            raise ValueError("a fault behind the tap")
        return x


@AS_IT_IS
def test_taps_are_off_after_a_forward_that_raised():
    net, failing, images = small(), Failing(), pictures(2)
    net = nn.Sequential(net.trunk, net.pool, nn.Flatten(), failing, net.linear)
    with torch.no_grad():
        expected = copy.deepcopy(net)(images)
    one = Explainer(net, images, layers=("0.1", "0.2"))
    failing.fails = True
    with pytest.raises(ValueError, match="behind the tap"):
        one.run(images, [[Query(layer="0.1")], [Query("gradient")]])
    failing.fails = False
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    # A tap that was still on would start a graph.
    assert not net(images).requires_grad
    assert torch.equal(net(images), expected)
    assert torch.equal(one.run(images, [[], []])[0], expected)


def test_closing_takes_the_hooks_off():
    one = tapped()
    one.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in one.model.modules())


def state(net):
    trained = {name: module.training for name, module in net.named_modules()}
    return trained, {name: parameter.requires_grad for name, parameter in net.named_parameters()}


def test_closing_gives_each_module_its_mode_and_each_parameter_its_flag_back():
    net = network("resnet18").train()
    net.layer1.eval()
    net.conv1.weight.requires_grad_(False)
    modes, flags = state(net)
    assert len(set(modes.values())) == len(set(flags.values())) == 2
    one = Explainer(net, pictures(2), layers=("layer4",))
    assert not any(state(net)[0].values()) and not any(state(net)[1].values())
    everything_of = [[Query("gradient")], [Query("gradcam")]]
    one.run(pictures(2), everything_of)
    one.close()
    assert state(net)[0] == modes
    # A fold takes a normalisation's parameters away, and gives the convolution a bias.
    kept = {name: flag for name, flag in state(net)[1].items() if name in flags}
    assert kept == {name: flags[name] for name in kept} and "fc.weight" in kept and "conv1.weight" in kept


def test_a_network_that_is_refused_gets_its_modes_and_flags_back():
    net = network("resnet18").train()
    before = state(net)
    with pytest.raises(UnsuitableModel):
        Explainer(net, pictures(2), layers=("nowhere",))
    assert state(net) == before


def test_a_network_of_two_explainers_is_frozen_until_both_are_closed():
    net = small().train()
    first, second = Explainer(net, pictures(2)), Explainer(net, pictures(2))
    first.close()
    assert not any(state(net)[0].values()) and not any(state(net)[1].values())
    second.close()
    second.close()
    assert all(state(net)[0].values()) and all(state(net)[1].values())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_callers_grad_mode_neither_matters_nor_changes(mode):
    one, images = tapped(), pictures(4)
    expected = one.run(images, EVERYTHING)[1]
    smoothed = one.explain(images[:1], Query("smoothgrad", samples=3, target=1))[0]
    with mode():
        given = one.run(images, EVERYTHING)[1]
        again = one.explain(images[:1].clone(), Query("smoothgrad", samples=3, target=1))[0]
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    for first, second in zip(expected, given):
        for one_answer, other in zip(first, second):
            assert torch.equal(one_answer.values, other.values)
    assert torch.equal(smoothed.values, again.values)
