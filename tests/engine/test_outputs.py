"""The score that is explained is the one before the sigmoid or softmax of a network's forward, in whichever part."""

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import ImageClassifierOutput

from heatserve.engine import Explainer, Query, UnsuitableModel
from tests.engine.networks import captum_gradcam, captum_gradient, distance, network, oracle, pictures, small

IMAGES = pictures(2)
QUERIES = [Query("gradcam", target=3), Query("gradient", target=3), Query("gradcam", target=1, contrast=2)]


class Ended(nn.Module):
    """A network that ends in a function of its scores."""

    def __init__(self, end, net=None) -> None:
        super().__init__()
        self.net, self.end = net or small(), end

    def forward(self, x: Tensor):
        return self.end(self.net(x))


class Module(nn.Module):
    """A network that ends in a module, which its forward calls."""

    def __init__(self, module: nn.Module, net=None) -> None:
        super().__init__()
        self.net, self.last = net or small(), module

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.net(x))


def in_place(scores: Tensor) -> Tensor:
    scores = scores.clone()
    return scores.sigmoid_()


def attended(scores: Tensor) -> Tensor:
    """Has further softmaxes and sigmoids in front of the last one, as attention and excitation do."""
    weights = torch.eye(6).mul(30).softmax(1)
    return (scores @ weights / torch.tensor(50.0).sigmoid()).softmax(-1)


ENDS = {
    "function": (torch.sigmoid, "sigmoid"),
    "method": (lambda y: y.sigmoid(), "sigmoid"),
    "in place": (in_place, "sigmoid"),
    "expit": (torch.special.expit, "sigmoid"),
    "operator": (torch.ops.aten.sigmoid.default, "sigmoid"),
    "log-sigmoid": (functional.logsigmoid, "sigmoid"),
    "squeezed": (lambda y: y[:, :, None, None].sigmoid().squeeze(3).squeeze(2), "sigmoid"),
    "reshaped": (lambda y: y.sigmoid()[:, None].view(-1, 6).clone().contiguous(), "sigmoid"),
    "stacked": (lambda y: torch.stack([c.sigmoid() for c in y.unbind(1)], 1), "sigmoid"),
    "in two parts": (lambda y: torch.cat([y[:, :2].sigmoid(), torch.sigmoid(y[:, 2:])], 1), "sigmoid"),
    "transposed": (lambda y: y.t().sigmoid().T, "sigmoid"),
    "softmax": (lambda y: y.softmax(1), "softmax"),
    "softmax as a function": (lambda y: functional.softmax(y, dim=-1, dtype=torch.float32), "softmax"),
    "softmax of torch": (lambda y: torch.softmax(y, 1), "softmax"),
    "log-softmax": (lambda y: functional.log_softmax(y, dim=1), "softmax"),
    "softmax behind others": (attended, "softmax"),
    "softmax of four axes": (lambda y: y[:, :, None, None].softmax(1), "softmax"),
    "both axes": (lambda y: {"probabilities": y.softmax(1)}, "softmax"),
}
MODULES = {
    "sigmoid": (nn.Sigmoid(), "sigmoid"),
    "softmax": (nn.Softmax(1), "softmax"),
    "log-softmax": (nn.LogSoftmax(1), "softmax"),
    "log-sigmoid": (nn.LogSigmoid(), "sigmoid"),
    "in a row": (nn.Sequential(nn.Identity(), nn.Sequential(nn.Dropout(), nn.Sigmoid()), nn.Flatten()), "sigmoid"),
}
NETWORKS = {name: (lambda end=end: Ended(end), activation) for name, (end, activation) in ENDS.items()}
NETWORKS |= {f"module {name}": (lambda end=end: Module(end), activation) for name, (end, activation) in MODULES.items()}


def answers(one: Explainer, images: Tensor, queries=QUERIES):
    scores, found = one.run(images, [queries] * len(images))
    return scores, [answer.values for row in found for answer in row]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_ends_in_its_activation_is_explained_as_the_one_without_it(name):
    build, activation = NETWORKS[name]
    scores, maps = answers(Explainer(small(), IMAGES), IMAGES)
    found, of_ended = answers(Explainer(build(), IMAGES, activation=activation), IMAGES)
    torch.testing.assert_close(found, scores, atol=1e-5, rtol=1e-5)
    assert all(bool(one.any()) for one in maps)
    assert all(distance(one, other) < 1e-4 for one, other in zip(of_ended, maps))


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_are_those_that_the_model_gives_itself(name):
    build, activation = NETWORKS[name]
    with torch.no_grad():
        own = build()(IMAGES)
    own = own["probabilities"] if isinstance(own, dict) else own.flatten(1)
    one = Explainer(build(), IMAGES, activation=activation)
    found = one.probabilities(one.run(IMAGES, [[], []])[0])
    torch.testing.assert_close(found, own.exp() if "log-" in name else own, atol=1e-6, rtol=1e-5)


class Scaled(nn.Module):
    """Has scores of a hundred and more, of which a sigmoid or softmax is 0 or 1 but for 1e-12."""

    def __init__(self, net: nn.Module, by: float) -> None:
        super().__init__()
        self.net, self.by = net, by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * self.net(x)


@pytest.mark.parametrize(("end", "activation"), [(torch.sigmoid, "sigmoid"), (lambda y: y.softmax(1), "softmax")])
def test_a_saturated_activation_does_not_reach_the_gradient(end, activation):
    """Captum explains the same network without the activation; finite differences agree."""

    def scaled() -> nn.Module:
        return Scaled(network("resnet18").double(), 3000.0)

    images = pictures(2).double()
    with torch.no_grad():
        own = end(scaled()(images))
    assert float((own * (1 - own)).amax()) < 1e-12
    one = Explainer(Ended(end, scaled()), images, layers=("net.net.layer4",), activation=activation)
    maps = one.explain(images, Query("gradcam", target=3))
    gradients = one.explain(images, Query("gradient", target=3))
    without = captum_gradient(Scaled(oracle("resnet18", torch.float64), 3000.0), images, 3)
    assert distance(torch.stack([answer.values for answer in gradients]), without) < 1e-6
    expected = 3000 * captum_gradcam("resnet18", images, 3)
    assert distance(torch.stack([answer.values for answer in maps]), expected) < 1e-6
    step = 1e-6 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = (scaled()(images + step) - scaled()(images - step))[:, 3].detach()
    along = torch.stack([(2 * step[n] * gradients[n].values).sum() for n in range(2)])
    torch.testing.assert_close(along, moved, rtol=1e-3, atol=0)


def labels() -> nn.Module:
    net = network("in_place")
    net[-1] = nn.Linear(24, 14)
    return net.eval()


def test_fourteen_labels_are_independent_with_a_sigmoid_in_forward_or_without():
    net = labels()
    with torch.no_grad():
        expected = net(IMAGES).sigmoid()
    plain = Explainer(copy.deepcopy(net), IMAGES, activation="sigmoid")
    ended = Explainer(Module(nn.Sigmoid(), copy.deepcopy(net)), IMAGES, activation="sigmoid")
    for one in (plain, ended):
        assert one.classes == 14
        found = one.probabilities(one.run(IMAGES, [[], []])[0])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not bool(torch.isclose(expected.sum(1), torch.ones(2)).any())


def refused(net: nn.Module, **declared) -> str:
    before = copy.deepcopy({name: one.training for name, one in net.named_modules()})
    with pytest.raises(UnsuitableModel) as caught:
        Explainer(net, IMAGES, **declared)
    assert {name: one.training for name, one in net.named_modules()} == before
    assert "forward" not in vars(net)
    message = str(caught.value)
    assert "\n" not in message and not message.endswith(".")
    return message


@pytest.mark.parametrize("declared", ["softmax", "none"])
def test_a_network_trained_with_sigmoids_in_forward_is_refused_under_another_activation(declared):
    message = refused(Module(nn.Sigmoid(), labels()), activation=declared)
    assert "a sigmoid is the last operation" in message and "write `explain: {activation: sigmoid}`" in message
    assert f"explain.activation is {declared}" in message


@pytest.mark.parametrize("declared", ["sigmoid", "none"])
@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_network_that_ends_in_a_softmax_is_refused_under_another_activation(end, declared):
    assert "write `explain: {activation: softmax}`" in refused(Module(end), activation=declared)


@pytest.mark.parametrize(
    "end",
    [
        lambda y: y.sigmoid().clamp(1e-6, 1 - 1e-6),
        lambda y: 0.999 * y.sigmoid(),
        lambda y: 1 / (1 + (-y).exp()),
        lambda y: y.sigmoid().mul_(0.5),
        lambda y: y.sigmoid().view(2, -1, 3).mean(2).repeat(1, 3) if len(y) == 2 else y.sigmoid(),
        functional.hardsigmoid,
    ],
    ids=["clamped", "scaled", "by hand", "changed in place", "averaged", "hard"],
)
def test_a_sigmoid_that_cannot_be_reached_is_refused_under_its_own_activation_too(end):
    message = refused(Ended(lambda y: end(20 * y)), activation="sigmoid")
    assert "look like probabilities" in message or "not (N, classes)" in message


def test_a_softmax_over_another_axis_is_refused():
    assert "not in one of each picture's own scores" in refused(Ended(lambda y: y.softmax(0)))


def test_a_change_in_place_behind_the_sigmoid_is_noticed():
    def rare(scores: Tensor) -> Tensor:
        found = scores.sigmoid()
        found.view(-1)[0] = 0.25
        return found

    assert "look like probabilities" in refused(Ended(rare), activation="sigmoid")


def test_a_change_in_place_that_changes_nothing_here_may_change_another_picture():
    def faint(scores: Tensor) -> Tensor:
        found = scores.sigmoid()
        found.view(-1)[found.view(-1) < 1e-30] = 0
        return found

    assert "look like probabilities" in refused(Ended(faint), activation="sigmoid")


def test_one_softmaxed_score_is_refused():
    net = small()
    net.linear = nn.Linear(12, 1)
    assert "the same for every picture" in refused(Module(nn.Softmax(1), net))
    assert "the same for every picture" in refused(Module(nn.Softmax(1), net), activation="sigmoid")


@pytest.mark.parametrize("squeeze", [lambda y: y, lambda y: y.squeeze(1), lambda y: y.squeeze()])
@pytest.mark.parametrize("squash", [True, False])
def test_one_label_may_come_without_an_axis_of_classes(squeeze, squash):
    net = small()
    net.linear = nn.Linear(12, 1)
    with torch.no_grad():
        score = copy.deepcopy(net)(IMAGES)[:, 0]
    one = Explainer(Ended(lambda y: squeeze(y.sigmoid() if squash else y), net), IMAGES, activation="sigmoid")
    scores, [row, _] = one.run(IMAGES, [[Query("gradient", target=1)], []])
    torch.testing.assert_close(scores, torch.stack([-score, score], 1), atol=1e-5, rtol=1e-5)
    assert distance(row[0].values[None], captum_gradient(net, IMAGES[:1], 0)) < 1e-4
    assert one.run(IMAGES[:1], [[]])[0].shape == (1, 2)


# Parts of an answer

Named = namedtuple("Named", ["embedding", "scores"])


@dataclass
class Data:
    loss: object
    scores: Tensor


class Plain:
    def __init__(self, scores: Tensor) -> None:
        self.scores, self.text = scores, "text"


ANSWERS = {
    "tuple": (lambda y: (y, y[:, None, :, None].expand(-1, 3, 6, 5)), None),
    "list": (lambda y: [y[:, None, :, None].expand(-1, 3, 6, 5), y], None),
    "dictionary": (lambda y: {"loss": None, "scores": y}, None),
    "ordered dictionary": (lambda y: OrderedDict(out=y, low=y[:, :2]), "out"),
    "number": (lambda y: (y[:, :2], y), "1"),
    "named tuple": (lambda y: Named(y[:, :2], y), "scores"),
    "data class": (lambda y: Data(None, y), None),
    "object": (Plain, None),
    "model output": (lambda y: ImageClassifierOutput(logits=y, hidden_states=(y,)), None),
    "logits beside others": (lambda y: {"logits": y, "boxes": y[:, :4]}, None),
    "one by name": (lambda y: {"logits": y[:, :3], "low": y}, "low"),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("squash", [False, True])
def test_scores_are_found_in_the_parts_of_an_answer(name, activation, squash):
    end, head = ANSWERS[name]
    function = {"softmax": lambda y: y.softmax(1), "sigmoid": torch.sigmoid}[activation] if squash else lambda y: y
    expected, maps = answers(Explainer(small(), IMAGES), IMAGES)
    one = Explainer(Ended(lambda y: end(function(y))), IMAGES, activation=activation, head=head)
    scores, found = answers(one, IMAGES)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    assert all(distance(one, other) < 1e-4 for one, other in zip(found, maps))


def test_several_parts_that_may_be_scores_are_refused_with_their_names_and_shapes():
    message = refused(Ended(lambda y: {"coarse": y[:, :2], "fine": y}))
    assert "coarse (2, 2), fine (2, 6)" in message and "`explain: {head: coarse}`" in message


def test_a_head_that_is_not_there_is_refused_with_those_that_are():
    assert "its tensors: coarse, fine" in refused(Ended(lambda y: {"coarse": y[:, :2], "fine": y}), head="medium")
    assert "remove explain.head" in refused(small(), head="fine")


@pytest.mark.parametrize("end", [lambda y: "text", lambda y: (y[:, None, :, None].expand(-1, 2, 6, 2),), lambda y: []])
def test_an_answer_without_scores_is_refused(end):
    assert "not one tensor of class scores" in refused(Ended(end))


# The model itself


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_scores_are_the_same_in_any_mode(mode):
    one = Explainer(Module(nn.Sigmoid()), IMAGES, activation="sigmoid")
    expected, maps = answers(one, IMAGES)
    with mode():
        scores, found = answers(one, IMAGES)
    assert torch.equal(scores, expected) and all(torch.equal(a, b) for a, b in zip(found, maps))


def test_closing_gives_the_model_its_own_answer_back_and_two_explainers_share_it():
    net = Module(nn.Sigmoid())
    with torch.no_grad():
        own = net(IMAGES)
        first = Explainer(net, IMAGES, activation="sigmoid")
        second = Explainer(net, IMAGES, activation="sigmoid")
        assert not torch.equal(net(IMAGES), own)
        with pytest.raises(UnsuitableModel, match="close that one first"):
            Explainer(net, IMAGES)
        first.close()
        second.run(IMAGES, [[], []])
        assert not torch.equal(net(IMAGES), own)
        second.close()
        second.close()
        torch.testing.assert_close(net(IMAGES), own)  # folds are not undone
    assert "forward" not in vars(net)


def test_a_copy_of_an_open_model_answers_for_itself():
    net = Module(nn.Sigmoid())
    one = Explainer(net, IMAGES, activation="sigmoid")
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
        assert not torch.equal(twin(IMAGES), net(IMAGES))
    one.close()


def test_an_exception_in_forward_leaves_no_mode_behind():
    class Stopping(Module):
        stops = False

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            if self.stops:
                raise KeyboardInterrupt
            return y

    net = Stopping(nn.Sigmoid())
    one = Explainer(net, IMAGES, activation="sigmoid")
    before = len(torch.overrides._get_current_function_mode_stack())
    net.stops = True
    for query in ([], [Query("gradient")]):
        with pytest.raises(KeyboardInterrupt):
            one.run(IMAGES, [query, []])
    assert len(torch.overrides._get_current_function_mode_stack()) == before
    net.stops = False
    one.run(IMAGES, [[], []])


def test_a_network_without_an_activation_in_forward_is_not_touched():
    net = small()
    Explainer(net, IMAGES)
    assert "forward" not in vars(net)


def test_a_forward_that_ends_otherwise_for_another_picture_is_an_error_and_no_wrong_answer():
    class Turning(Module):
        turned = False

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y * 0.5 if self.turned else y

    net = Turning(nn.Sigmoid())
    one = Explainer(net, IMAGES, activation="sigmoid")
    net.turned = True
    with pytest.raises(RuntimeError, match="does not end in its sigmoid"):
        one.run(IMAGES, [[], []])


def test_a_sigmoid_is_left_out_of_a_network_in_fewer_bits_too():
    images = IMAGES.bfloat16()
    one = Explainer(Module(nn.Sigmoid(), small()).bfloat16(), images, activation="sigmoid")
    with torch.no_grad():
        expected = small().bfloat16()(images)
    torch.testing.assert_close(one.run(images, [[], []])[0].float(), expected.float(), atol=0.02, rtol=0.02)
