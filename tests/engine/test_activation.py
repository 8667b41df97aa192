"""Answers are made of scores by the activation that was declared; one score is a label and its absence, or a value."""

import pytest
import torch
from torch import Tensor, nn

from heatserve.engine import ACTIVATIONS, Explainer, Query, UnsuitableModel
from tests.engine.networks import Small, captum_gradient, distance, pictures, seeded, small

IMAGES = pictures(3)


def with_outputs(count: int) -> Small:
    def build() -> Small:
        net = Small()
        net.linear = nn.Linear(12, count)
        for parameter in net.parameters():
            parameter.data *= 2
        return net

    return seeded(build).eval()


def by_definition(logits: Tensor, activation: str) -> Tensor:
    values = logits.double()
    if activation == "softmax":
        return values.exp() / values.exp().sum(1, keepdim=True)
    return 1 / (1 + (-values).exp()) if activation == "sigmoid" else values


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_probabilities_are_those_of_the_declared_activation(activation):
    one = Explainer(small(), IMAGES, activation=activation)
    with torch.no_grad():
        logits = small()(IMAGES)
    scores, _ = one.run(IMAGES, [[], [], []])
    assert one.activation == activation and one.classes == 6
    torch.testing.assert_close(one.probabilities(scores).double(), by_definition(logits, activation), atol=1e-5, rtol=0)


def test_an_unknown_activation_is_refused_by_name():
    with pytest.raises(ValueError, match="'relu'; allowed: softmax, sigmoid, none"):
        Explainer(small(), IMAGES, activation="relu")


def test_one_score_with_softmax_is_refused_with_the_line_to_add():
    with pytest.raises(UnsuitableModel, match=r"explain: {activation: sigmoid}.*explain: {activation: none}"):
        Explainer(with_outputs(1), IMAGES)


def test_one_score_with_sigmoid_is_a_label_and_its_absence():
    one = Explainer(with_outputs(1), IMAGES, activation="sigmoid")
    with torch.no_grad():
        score = with_outputs(1)(IMAGES)[:, 0]
    scores, _ = one.run(IMAGES, [[], [], []])
    found = one.probabilities(scores)
    assert one.classes == 2
    torch.testing.assert_close(scores, torch.stack([-score, score], 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 1], score.sigmoid(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(3))


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("method", ["gradcam", "cam", "gradient"])
def test_maps_of_one_label_are_those_of_its_score_and_of_its_absence_of_the_negative_score(method, target):
    """The oracle is the network with a linear layer of two outputs, the first of them the negative of the second."""
    both = with_outputs(1)
    weight, bias = both.linear.weight.data, both.linear.bias.data
    both.linear = nn.Linear(12, 2)
    both.linear.weight.data, both.linear.bias.data = torch.cat([-weight, weight]), torch.cat([-bias, bias])
    expected = Explainer(both, IMAGES).explain(IMAGES, Query(method, target=target))
    found = Explainer(with_outputs(1), IMAGES, activation="sigmoid").explain(IMAGES, Query(method, target=target))
    assert any(bool(one.values.any()) for one in found)
    for one, other in zip(found, expected):
        assert distance(one.values, other.values) < 1e-4


@pytest.mark.parametrize("target", [0, 1])
def test_the_gradient_of_one_label_equals_captums_with_its_sign(target):
    score = with_outputs(1)
    one = Explainer(with_outputs(1), IMAGES, activation="sigmoid")
    found = torch.stack([one.values for one in one.explain(IMAGES, Query("gradient", target=target))])
    assert distance(found, (1 if target else -1) * captum_gradient(score, IMAGES, 0)) < 1e-4


def test_one_label_keeps_the_closed_form_of_its_head():
    head = Explainer(with_outputs(1), IMAGES, activation="sigmoid").head
    weight = with_outputs(1).linear.weight
    assert head is not None and torch.equal(head.weight, torch.cat([-weight, weight]))


def test_one_value_is_the_target_of_a_regression():
    one = Explainer(with_outputs(1), IMAGES, activation="none")
    with torch.no_grad():
        value = with_outputs(1)(IMAGES)
    scores, [row, *_] = one.run(IMAGES, [[Query("gradient")], [], []])
    assert one.classes == 1 and row[0].query.target == 0
    torch.testing.assert_close(one.probabilities(scores), value, atol=1e-5, rtol=1e-5)
    assert distance(row[0].values[None], captum_gradient(with_outputs(1), IMAGES[:1], 0)) < 1e-4
    with pytest.raises(ValueError, match="the network has 1 class"):
        one.run(IMAGES[:1], [[Query(contrast=1)]])
