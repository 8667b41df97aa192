"""Networks whose answers would be wrong are refused at load in one sentence, and no others are."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from heatserve.engine import Explainer, Query, UnsuitableModel, network
from heatserve.engine.head import LinearHead
from heatserve.engine.planted import axes_of_places
from heatserve.engine.scores import prove_scores
from tests.engine.networks import Small, pictures, seeded, small

IMAGES = pictures(2)


class Ended(nn.Module):
    """A network that ends in a function of its scores."""

    def __init__(self, end) -> None:
        super().__init__()
        self.net, self.end = small(), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.net(x))


def refused(net, images=IMAGES, layers=()):
    with pytest.raises(UnsuitableModel) as caught:
        Explainer(net, images, layers=layers)
    message = str(caught.value)
    assert "\n" not in message and not message.endswith(".")
    return message


def hooks(net):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


def test_a_network_that_is_refused_keeps_no_hook():
    net = small()
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    assert hooks(net) == 0
    refused(net, layers=linear)
    assert hooks(net) == 0


# Scores


def test_one_score_is_refused_and_the_way_out_gives_the_same_probability():
    net = small()
    net.linear = nn.Linear(12, 1)
    assert "torch.cat([torch.zeros_like(score), score], 1)" in refused(net)

    def two(score):
        return torch.cat([torch.zeros_like(score), score], 1)

    one = Explainer(Ended(two).eval(), IMAGES)
    one.model.net.linear = nn.Linear(12, 1)
    scores, _ = one.run(IMAGES, [[], []])
    torch.testing.assert_close(scores.softmax(1)[:, 1], scores[:, 1].sigmoid())


def rare(*classes):
    """Subtracted from scores: these classes hardly ever occur."""
    return 20.0 * torch.isin(torch.arange(6), torch.tensor(classes))


@pytest.mark.parametrize(
    "end",
    [
        torch.sigmoid,
        lambda y: (30 * y).sigmoid(),
        nn.functional.hardsigmoid,
        lambda y: torch.cat([1 - y[:, :1].sigmoid(), y[:, :1].sigmoid()], 1),
        lambda y: 1 / (1 + (-y).exp()),
        lambda y: (y.tanh() + 1) / 2,
        lambda y: y.exp() / y.exp().sum(1, keepdim=True),
        lambda y: (y.softmax(1) + y.softmax(1)) / 2,
        lambda y: y.softmax(0),
        lambda y: (0 * y).sigmoid(),
        lambda y: y.sigmoid()[:, None].squeeze(1).clone(),
        lambda y: (y - rare(0)).sigmoid().clamp(1e-6, 1 - 1e-6),
        lambda y: torch.stack([c.sigmoid() for c in (y - rare(0)).unbind(1)], 1),
        lambda y: (y - rare(0)).t().sigmoid().t(),
        lambda y: (y - rare(0)).sigmoid().transpose(0, 1)[torch.tensor([2, 1, 0])].permute(1, 0),
        lambda y: 0.999 * (y - rare(0)).sigmoid(),
        lambda y: 1 / (1 + (rare(0) - y).exp()),
        lambda y: 1 / (1 + (rare(0, 1, 2, 3, 5) - y).exp()),
    ],
    ids=[
        "sigmoid", "sharp sigmoid", "hardsigmoid", "both sides of a sigmoid",
        "sigmoid by hand", "tanh", "softmax by hand", "mean of softmaxes", "softmax over pictures",
        "untrained sigmoid", "sigmoid, reshaped", "clamped", "stacked", "transposed", "selected", "scaled",
        "by hand, the first rare", "by hand, most rare",
    ],
)  # fmt: skip
def test_what_looks_like_probabilities_is_refused(end):
    message = refused(Ended(end))
    assert "scores before its softmax or sigmoid" in message and "between 0 and 1" in message


def test_percentages_are_refused():
    message = refused(Ended(lambda y: 100 * y.softmax(1)))
    assert "all lie between 0 and 100, and of each picture they sum to 100" in message


def test_a_network_without_a_gradient_is_not_pushed_step_by_step():
    """The head of a new network is often all zeros."""
    net, passes = Ended(lambda y: 0 * y[:, :2] + 0.5), []
    net.register_forward_hook(lambda *_: passes.append(1))
    prove_scores(net.requires_grad_(False), IMAGES, net(IMAGES))
    assert len(passes) <= 5


@pytest.mark.parametrize(
    "end",
    [
        lambda y: 0 * y,
        lambda y: 0 * y[:, :2] + 0.5,
        lambda y: nn.functional.layer_norm(y, (6,)) * 0.2 + 1,
        lambda y: 0 * y + 0.5,
        lambda y: 1e-3 * y + 0.5,
        lambda y: 0.05 * y.relu(),
        lambda y: 0.2 * y.abs(),
        lambda y: nn.functional.layer_norm(y, (6,)) * 0.02 + 0.1,
        lambda y: y.log_softmax(1),
        lambda y: y.tanh(),
        lambda y: (y.softmax(1) + 1).log() * 3,
    ],
    ids=[
        "a head of zeros", "two equal constants", "normalised about 1",
        "a constant", "nearly a constant", "positive", "absolute", "normalised", "log-softmax",
        "tanh", "small and positive",
    ],
)  # fmt: skip
def test_scores_that_happen_to_lie_between_0_and_1_are_no_probabilities(end):
    net = Ended(end)
    Explainer(net, IMAGES)


@pytest.mark.parametrize("seed", range(8))
def test_an_untrained_network_with_two_classes_is_served(seed):
    def build():
        net = Small()
        net.linear = nn.Linear(12, 2)
        for parameter in net.linear.parameters():
            parameter.data.abs_().mul_(0.01)
        return net

    Explainer(seeded(build, seed).eval(), torch.rand(2, 3, 40, 72))


# Layouts


class Permuted(nn.Module):
    """A trunk whose activation is permuted by a module of its own, and back."""

    def __init__(self, *axes: int, fixed: bool = False, stride: int = 2) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 5, stride, 2), nn.Conv2d(8, 8, 3, 2, 1)
        self.axes, self.back = axes, [axes.index(axis) for axis in range(4)]
        self.permuted, self.linear, self.fixed = nn.Identity(), nn.Linear(8, 5), fixed

    def forward(self, x: Tensor) -> Tensor:
        assert not self.fixed or x.shape[2:] == IMAGES.shape[2:]
        y = self.second(self.first(x).relu()).relu()
        y = self.permuted(y.permute(self.axes)).permute(self.back)
        return self.linear(y.mean((2, 3)))


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(
    ("axes", "rows", "columns"),
    [((0, 1, 3, 2), 2, 1), ((0, 3, 2, 1), 1, 0), ((0, 3, 1, 2), 2, 0)],
)
def test_a_layer_of_another_layout_is_refused_and_its_axes_are_named(axes, rows, columns, fixed):
    message = refused(seeded(lambda: Permuted(*axes, fixed=fixed)).eval(), layers=("permuted",))
    assert f"rows along axis {rows} and columns along axis {columns}" in message
    assert "(K, h, w)" in message


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["first", "last"])
def test_the_same_layer_with_its_channels_first_or_last_is_served(axes):
    net, plain = (seeded(lambda order=order: Permuted(*order)).eval() for order in (axes, (0, 1, 2, 3)))
    (answer,) = Explainer(net, IMAGES, layers=("permuted",)).explain(IMAGES[:1], Query(target=1))
    (expected,) = Explainer(plain, IMAGES, layers=("permuted",)).explain(IMAGES[:1], Query(target=1))
    assert answer.values.shape == (10, 18)
    torch.testing.assert_close(answer.values, expected.values)


def test_swins_permutation_is_found_where_it_is_before():
    def build():
        return torchvision.models.swin_transformer.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=5)

    images = pictures(2, (64, 64))
    one = Explainer(seeded(build), images)
    assert one.layer == "permute" and one.explain(images, Query())[0].values.shape == (8, 8)
    Explainer(seeded(build), images, layers=("permute",))


class Shuffled(Permuted):
    """Rows and columns in an order that is none."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == IMAGES.shape[2:]
        y = self.second(self.first(x).relu()).relu()
        order = torch.randperm(y[0, 0].numel(), generator=torch.Generator().manual_seed(0))
        y = self.permuted(y.flatten(2)[:, :, order].view_as(y).clone())
        return self.linear(y.mean((2, 3)))


def test_a_named_layer_that_nothing_is_shown_of_is_refused():
    net = seeded(lambda: Shuffled(0, 1, 2, 3)).eval()
    assert "is not shown to be (K, h, w)" in refused(net, layers=("permuted",))


class Tokens(nn.Module):
    """A map of tokens, (N, T, K), in the given order."""

    def __init__(self, order, channels: int, side: int) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, channels, 64 // side, 64 // side), nn.LayerNorm(channels)
        self.map, self.linear, self.order = nn.Identity(), nn.Linear(channels, 5), order

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        tokens = self.norm(y.flatten(2).transpose(1, 2))
        return self.linear(nn.functional.gelu(self.map(self.order(tokens, y))).mean((2, 3)))


def random_order(tokens, y):
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(1))
    return tokens[:, order].transpose(1, 2).reshape(y.shape)


ORDERS = {
    "not transposed": lambda tokens, y: tokens.reshape(y.shape),
    "at random": random_order,
    "rows upside down": lambda tokens, y: tokens.transpose(1, 2).reshape(y.shape).flip(2),
    "right": lambda tokens, y: tokens.transpose(1, 2).reshape(y.shape),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("channels", "side"), [(16, 8), (8, 8), (64, 4)])
def test_a_named_map_of_tokens_in_another_order_is_refused(order, channels, side):
    """Its shape grows with the picture as a map's does."""
    net, images = seeded(lambda: Tokens(ORDERS[order], channels, side)).eval(), pictures(2, (64, 64))
    if order == "right":
        Explainer(net, images, layers=("map",))
    elif order == "not transposed" and (channels, side) == (8, 8):
        # As many rows, columns and channels: tokens that are not transposed are rows, columns and channels.
        assert str(Explainer(net, images, layers=("map",)).layout_of("map")) == "nhwc"
    else:
        assert "map" in refused(net, images, layers=("map",))


@pytest.mark.parametrize("count", [1, 2])
def test_a_layer_whose_first_axis_is_not_that_of_the_pictures_is_refused(count):
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.map, self.linear = nn.Conv2d(3, 8, 4, 4), nn.Identity(), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).unflatten(2, (-1, 4)).unflatten(4, (-1, 4)).permute(0, 2, 4, 1, 3, 5)
            windows = self.map(y.flatten(0, 2)).relu()
            return self.linear(windows.mean((2, 3)).view(len(x), -1, 8).mean(1))

    message = refused(seeded(Windows).eval(), pictures(count, (64, 64)), layers=("map",))
    assert "(N, K, h, w)" in message


@pytest.mark.parametrize("layers", [(), ("layer4",)], ids=["found", "named"])
@pytest.mark.parametrize("side", [32, 64])
def test_maps_of_so_few_places_that_each_sees_the_whole_picture_are_served(side, layers):
    net = seeded(lambda: torchvision.models.resnet18(num_classes=5)).eval()
    Explainer(net, pictures(2, (side, side)), layers=layers)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("efficientnet_b0", "features"),
        ("mobilenet_v3_small", "features"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("squeezenet1_1", "features.12"),
        ("mnasnet0_5", "layers"),
        ("regnet_y_400mf", "trunk_output"),
        ("convnext_tiny", "features"),
    ],
)
def test_layers_that_see_far_or_the_whole_picture_are_shown_to_be_maps(name, layer):
    """Squeeze and excitation lets every place answer to every change; at 64 pixels a map has 2 x 2 places."""
    net = seeded(lambda: torchvision.models.get_model(name, num_classes=5)).eval()
    Explainer(net, pictures(2, (64, 64)), layers=(layer,))


def test_a_change_of_all_places_at_once_does_not_hide_the_corner():
    """As attention does it: every corner's change moves each channel as a whole, and its own corner a little."""
    changed = torch.zeros(5, 16, 7, 7)
    changed[1:] = torch.randn(4, 16, 1, 1, generator=torch.Generator().manual_seed(0))
    for corner, (row, column) in enumerate(((0, 0), (0, 5), (5, 0), (5, 5))):
        changed[corner + 1, :, row : row + 2, column : column + 2] += 0.2
    assert axes_of_places(changed) == (2, 3)
    assert axes_of_places(changed.permute(0, 2, 3, 1)) == (1, 2)


def test_what_no_corner_answers_to_is_not_decided():
    assert axes_of_places(torch.zeros(5, 3, 4, 4)) is None
    assert axes_of_places(torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))) is None


@pytest.mark.parametrize("wrong", [-1.0, 2.0])
def test_a_head_whose_closed_form_is_not_autograds_gradient_is_refused_at_load(monkeypatch, wrong):
    def linear_head(model, structure, layouts):
        return LinearHead(structure.head.layer, wrong * model.linear.weight.detach())

    monkeypatch.setattr(network, "linear_head", linear_head)
    with pytest.raises(UnsuitableModel, match="layer 'trunk': the closed-form gradient differs from autograd's"):
        Explainer(small(), pictures(2))
