"""Which pairs are folded where others in the same network cannot be, and what the proof of it looks at."""

import copy

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from heatserve.engine import Explainer, UnsuitableModel
from tests.engine.networks import distance, pictures, seeded
from tests.engine.test_optimize import Net, Stubborn

pytestmark = [pytest.mark.parametrize("optimize", [True], indirect=True, ids=["optimized"]), pytest.mark.fast_path]


def normalisation(**options) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(6, **options)
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
    return norm


class Ordinary(Net):
    """A second convolution and batch normalisation, which can be folded whatever the first two are."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.second_norm = nn.Conv2d(6, 6, 3), normalisation()

    def first(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def trunk(self, x: Tensor) -> Tensor:
        return self.second_norm(self.second(self.first(x).relu())).relu()


class Repeated(Ordinary):
    """The first convolution runs twice."""

    def first(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.conv(x * 0.5)


class NormalisedTwice(Ordinary):
    """The first batch normalisation runs twice."""

    def first(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(x)))


class Shared(Ordinary):
    """The first convolution's weight is another one's too."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = nn.Conv2d(3, 6, 3, bias=False)
        self.twin.weight = self.conv.weight

    def first(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.twin(x)


class Computed(Ordinary):
    """The first convolution's weight is computed from others."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv)


class OfTheBatch(Ordinary):
    """The first batch normalisation has no statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)


def proved(net: nn.Module, *layers: str) -> Explainer:
    """An explainer whose scores are the network's as it was."""
    net, images = net.eval(), pictures(2)
    untouched = copy.deepcopy(net)
    one = Explainer(net, images, layers=layers)
    with torch.no_grad():
        assert distance(one.run(images, [[], []])[0], untouched(images)) < 1e-5
    return one


@pytest.mark.parametrize("build", [Repeated, NormalisedTwice, Shared, Computed, OfTheBatch])
def test_a_pair_that_cannot_be_folded_does_not_keep_others_from_it(build):
    one = proved(seeded(build), "second_norm")
    assert one.optimized.folded == 1
    assert isinstance(one.model.norm, nn.BatchNorm2d) and isinstance(one.model.second_norm, nn.Identity)


@pytest.mark.parametrize("layer", ["conv", "norm:input"])
def test_a_tap_between_the_two_keeps_them_and_no_others(layer):
    one = proved(seeded(Ordinary), layer)
    assert one.optimized.folded == 1
    assert isinstance(one.model.norm, nn.BatchNorm2d)


class WithoutScale(Ordinary):
    def __init__(self) -> None:
        super().__init__()
        self.norm = normalisation(affine=False)


class Grouped(Ordinary):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, groups=3, padding=1, padding_mode="reflect")


@pytest.mark.parametrize("build", [Ordinary, WithoutScale, Grouped])
def test_what_kind_of_convolution_and_normalisation_it_is_matters_not(build):
    assert proved(seeded(build), "norm").optimized.folded == 2


class Slightly(Net):
    """Scores that are a little larger where the convolution has a bias: by less than rounding may make of them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if self.conv.bias is None else 1 + 3e-4)


def test_a_change_of_a_probability_is_seen_where_the_scores_pass_for_equal():
    one = proved(seeded(Slightly), "norm")
    # What else makes it faster is done all the same.
    assert one.optimized == type(one.optimized)(0, torch.channels_last)


def test_a_change_of_the_scores_is_seen_where_the_probabilities_are_equal():
    net = seeded(Net)
    net.conv = seeded(lambda: Stubborn(3, 6, 3, bias=False))
    net.linear.bias.data[1] = 1e3  # a certainty
    assert proved(net, "norm").optimized.folded == 0


class Aside(Net):
    """What is tapped counts for a score next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Stubborn(3, 6, 3, bias=False)
        self.other = nn.Conv2d(3, 6, 3)

    def trunk(self, x: Tensor) -> Tensor:
        return (self.other(x) + 1e-9 * super().trunk(x)).relu()


def test_a_change_of_a_tapped_activation_is_seen_where_the_scores_are_equal():
    assert proved(seeded(Aside), "norm").optimized.folded == 0


def test_images_come_in_the_order_in_memory_that_the_network_was_given():
    net, seen = seeded(Net), []
    one = proved(net, "norm")
    assert one.optimized.layout is torch.channels_last
    net.conv.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    one.run(pictures(2), [[], []])
    assert [x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in seen] == [True]


def test_where_nothing_helps_the_network_is_left_in_its_own_order_in_memory():
    class Counting(Net):
        """Counts on its layout before and behind the convolution."""

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x.view(len(x), -1).view(x.shape))
            return self.linear(self.norm(y).relu().view(len(y), 6, -1).mean(2))

    net = seeded(Counting)
    net.conv = seeded(lambda: Stubborn(3, 6, 3, bias=False))
    one = proved(net, "norm")
    assert one.optimized == type(one.optimized)()
    assert all(parameter.is_contiguous() for parameter in net.parameters())


class NormalisedBySeveral(Ordinary):
    """What the first convolution gives goes into two batch normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.other_norm = normalisation()

    def first(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + self.other_norm(y)


def test_a_convolution_that_is_normalised_by_several_keeps_its_weight():
    net = seeded(NormalisedBySeveral)
    weight = net.conv.weight.detach().clone()
    one = proved(net, "second_norm")
    assert torch.equal(one.model.conv.weight, weight) and one.model.conv.bias is None


class Reading(Ordinary):
    """Counts on its batch normalisation being one."""

    def first(self, x: Tensor) -> Tensor:
        return super().first(x) * (self.norm.num_features / self.norm.num_features)


class Pruned(Ordinary):
    """The weight is made anew before each pass."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():  # or the network could not be copied
            torch.nn.utils.prune.random_unstructured(self.conv, "weight", 0.3)


@pytest.mark.parametrize("build", [Reading, Pruned])
def test_a_network_that_cannot_be_folded_there_is_served_as_it_was(build):
    proved(seeded(build), "second_norm")


def test_a_layer_that_never_runs_is_refused_with_a_sentence():
    net = seeded(Ordinary)
    net.aside = nn.Conv2d(3, 3, 1)
    with pytest.raises(UnsuitableModel, match="layer 'aside'"):
        proved(net, "aside")


def test_halves_of_a_batch_see_the_images_as_they_were(monkeypatch):
    """Where the network works in place on its input and the first try ran out of memory."""
    net, images = nn.Sequential(nn.Hardtanh(-0.5, 0.5, inplace=True), seeded(Ordinary)).eval(), pictures(2)
    with torch.no_grad():
        expected = copy.deepcopy(net)(images.clone())
    one, tries = Explainer(net, pictures(2, seed=5)), []

    def short(_module, _inputs):
        tries.append(1)
        if len(tries) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    net[1].register_forward_pre_hook(short)
    before = images.clone()
    scores, _ = one.run(images, [[], []])
    assert len(tries) == 3 and torch.equal(images, before)
    assert distance(scores, expected) < 1e-4
