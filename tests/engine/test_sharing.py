"""Sharing: targets of one picture take one forward pass of each draw, and answer as each target alone does."""

from collections import Counter

import pytest
import torch
from captum.attr import LayerGradCam

from heatserve.engine import Explainer, Query, Smoothing, price_of, work_of
from heatserve.engine.methods.occlusion import windows
from heatserve.engine.sampling import Noise
from tests.engine.networks import captum_gradient, distance, pictures, small

IMAGE = pictures(1, (24, 36), seed=8)
TARGETS = range(5)
ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])
pytestmark = [ONCE, pytest.mark.fast_path]


def counted(one):
    """The counts of forward passes and of their images, which go on with each pass of an explainer."""
    found = Counter()

    def count(module, inputs):
        found.update(passes=1, images=len(inputs[0]))

    one.model.register_forward_pre_hook(count)
    return found


def taken(one, smoothings, chunk=4):
    """The answers of explanations that advance together."""
    while any(smoothing.left for smoothing in smoothings):
        list(one.advance([(each, min(chunk, each.left)) for each in smoothings if each.left]))
    return [smoothing.estimate() for smoothing in smoothings]


def begun(one, queries, image=IMAGE[0]):
    return [one.begin(image, query) for query in queries]


def test_targets_take_as_many_forward_passes_as_one_and_get_captums_gradients():
    one, net = Explainer(small(), IMAGE), small()
    forwards = counted(one)
    answers = taken(one, begun(one, [Query("smoothgrad", target=k, samples=10, seed=3) for k in TARGETS]))
    assert forwards == {"passes": 3, "images": 10}
    noisy = Noise(IMAGE[0], 0.15, 3).draw(0, 10)
    for target, answer in zip(TARGETS, answers):
        assert (answer.query.target, answer.samples_used) == (target, 10)
        theirs = captum_gradient(net, noisy, target)
        assert distance(answer.values, theirs.mean(0)) < 1e-5
        assert distance(answer.standard_error, theirs.std(0) / 10**0.5) < 1e-4


@pytest.mark.parametrize(
    ("method", "options", "images"),
    [
        ("smoothgrad", {"contrast": 5}, 9),
        ("gradcam", {}, 9),
        ("gradcam", {"layer": "trunk.1"}, 9),
        ("gradcam", {"layer": "trunk.1+trunk"}, 9),
        ("guided_backpropagation", {}, 9),
        ("guided_gradcam", {}, 9),
        ("integrated_gradients", {}, 9 + 2),
        ("expected_gradients", {}, 9),
        ("rise", {"samples": 40}, 40),
        ("occlusion", {"samples": 200}, 1 + len(windows(24, 36))),
    ],
)
def test_each_target_is_as_it_is_alone(method, options, images):
    one = Explainer(small(), IMAGE, layers=("trunk", "trunk.1"))
    forwards = counted(one)
    queries = [Query(method, target=k, **{"samples": 9, "seed": 2, **options}) for k in TARGETS]
    alone = [taken(one, begun(one, [query]))[0] for query in queries]
    assert forwards["images"] == len(queries) * images
    forwards.clear()
    together = taken(one, begun(one, queries))
    assert forwards["images"] == images
    for query, answer, other in zip(queries, together, alone):
        assert answer.query.target == query.target
        if method in ("gradcam", "guided_gradcam"):  # the known gradients of all targets are one tensor
            assert distance(answer.values, other.values) < 1e-6
        else:
            assert torch.equal(answer.values, other.values)
        assert (answer.facts, answer.samples_used) == (other.facts, other.samples_used)
    assert len({answer.values.sum().item() for answer in together}) == len(queries)


def test_statistics_of_the_same_noise_share_forward_and_backward_passes():
    one, net = Explainer(small(), IMAGE), small()
    forwards = counted(one)
    methods = ("smoothgrad", "smoothgrad_squared", "vargrad")
    queries = [Query(method, target=k, samples=8, seed=1) for method in methods for k in (1, 4)]
    smoothings, steps = begun(one, queries), 0
    steps = len(list(one.advance([(each, 8) for each in smoothings])))
    assert forwards == {"passes": 1, "images": 8} and steps == 2
    noisy = Noise(IMAGE[0], 0.15, 1).draw(0, 8)
    for smoothing in smoothings:
        theirs, found = captum_gradient(net, noisy, smoothing.query.target), smoothing.estimate()
        expected = {
            "smoothgrad": theirs.mean(0),
            "smoothgrad_squared": theirs.square().mean(0),
            "vargrad": theirs.var(0, unbiased=False),
        }
        assert distance(found.values, expected[found.query.method]) < 1e-4


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"noise_level": 0.1},
        {"samples": 7},
        {"method": "expected_gradients"},
        {"method": "rise"},
    ],
)
def test_other_draws_share_no_image(other):
    one = Explainer(small(), IMAGE)
    forwards = counted(one)
    queries = [Query("smoothgrad", target=1, samples=6), Query(**{"method": "smoothgrad", "samples": 6, **other})]
    queries[1] = queries[1].at(1)
    answers = taken(one, begun(one, queries))
    assert forwards["images"] == sum(query.count for query in queries)
    for query, answer in zip(queries, answers):
        assert distance(answer.values, taken(one, begun(one, [query]))[0].values) < 1e-5


def test_another_picture_and_another_place_in_the_samples_share_no_image():
    # Each picture is one tensor: `images[0]` would be another one each time.
    one, images = Explainer(small(), IMAGE), [*pictures(2, (24, 36), seed=3)]
    forwards = counted(one)
    query = Query("smoothgrad", target=1, samples=6)
    first, other, ahead = (one.begin(image, query) for image in (images[0], images[1], images[0]))
    list(one.advance([(ahead, 2)]))
    forwards.clear()
    list(one.advance([(first, 3), (other, 3), (ahead, 3)]))
    assert forwards == {"passes": 1, "images": 9}
    for smoothing, image in ((first, images[0]), (other, images[1]), (ahead, images[0])):
        alone = one.begin(image, query)
        list(one.advance([(alone, smoothing.samples)]))
        assert distance(smoothing.estimate().values, alone.estimate().values) < 1e-5


def test_a_path_whose_references_are_further_on_shares_no_image_with_one_that_begins():
    one, image = Explainer(small(), IMAGE), IMAGE[0]
    queries = [Query("integrated_gradients", target=k, samples=6) for k in (1, 2)]
    alone = [taken(one, begun(one, [query]))[0] for query in queries]
    first, ahead = begun(one, queries, image)
    list(one.advance([(ahead, 1)]))
    forwards = counted(one)
    list(one.advance([(first, 2), (ahead, 2)]))
    assert forwards["images"] == 4
    for answer, other in zip(taken(one, [first, ahead]), alone):
        assert distance(answer.values, other.values) < 1e-5
        assert answer.facts == pytest.approx(other.facts, rel=1e-3)


def test_explanations_that_get_fewer_draws_share_as_far_as_they_go():
    one, net = Explainer(small(), IMAGE), small()
    forwards = counted(one)
    counts = (3, 7, 5)
    smoothings = begun(one, [Query("smoothgrad", target=k, samples=9) for k in range(3)])
    list(one.advance(list(zip(smoothings, counts))))
    assert forwards == {"passes": 1, "images": 7}
    noisy = Noise(IMAGE[0], 0.15, 0).draw(0, 9)
    for smoothing, count in zip(smoothings, counts):
        assert smoothing.samples == count
        theirs = captum_gradient(net, noisy[:count], smoothing.query.target).mean(0)
        assert distance(smoothing.estimate().values, theirs) < 1e-5
    assert all(answer.samples_used == 9 for answer in taken(one, smoothings))


def test_an_explanation_that_ends_by_its_error_leaves_the_others_together():
    """In float64, where rounding by batch shape moves nothing across a kink."""
    image, one = IMAGE.double(), Explainer(small().double(), IMAGE.double())
    queries = [Query("smoothgrad", target=k, samples=90, standard_error=0.25) for k in TARGETS]
    alone = [taken(one, begun(one, [query], image[0]))[0] for query in queries]
    ends = [answer.samples_used for answer in alone]
    assert len(set(ends)) > 1 and min(ends) < 90
    for chunk in (1, 4, 7):
        forwards = counted(one)
        together = taken(one, begun(one, queries, image[0]), chunk)
        assert [answer.samples_used for answer in together] == ends
        assert forwards["images"] <= max(ends) + chunk
        for answer, other in zip(together, alone):
            assert distance(answer.values, other.values) < 1e-6


def test_pictures_with_as_many_targets_share_a_pass_and_others_have_their_own():
    one, images = Explainer(small(), IMAGE), [*pictures(3, (24, 36), seed=3)]
    forwards = counted(one)
    asked = [(images[0], (0, 2)), (images[1], (3, 1)), (images[2], (4,))]
    smoothings = [one.begin(image, Query("smoothgrad", target=k, samples=4)) for image, some in asked for k in some]
    steps = len(list(one.advance([(each, 4) for each in smoothings])))
    assert forwards == {"passes": 2, "images": 12} and steps == 3
    for smoothing, image in zip(smoothings, [image for image, some in asked for _ in some]):
        theirs = captum_gradient(small(), Noise(image, 0.15, 0).draw(0, 4), smoothing.query.target).mean(0)
        assert distance(smoothing.estimate().values, theirs) < 1e-5


def test_score_cam_of_several_targets_has_one_list_of_masks_where_the_activations_are_equal():
    one = Explainer(small(), IMAGE)
    queries = [Query("scorecam", target=k) for k in (1, 2)]
    alone = [taken(one, begun(one, [query]))[0] for query in queries]
    image = IMAGE[0]
    (first,) = begun(one, queries[:1], image)
    prepared = one.run(IMAGE, [[queries[0].at_image]])[1][0][0].values
    forwards = counted(one)
    together = taken(one, [first, Smoothing(image, queries[1], prepared, first)])
    assert forwards["images"] == 12
    assert all(torch.equal(answer.values, other.values) for answer, other in zip(together, alone))
    forwards.clear()
    taken(one, begun(one, queries))
    assert forwards["images"] == 2 + 2 * 12


@pytest.mark.parametrize("fits", [1, 2])
def test_a_pass_that_does_not_fit_is_halved_with_all_its_targets(monkeypatch, fits):
    one, net = Explainer(small(), IMAGE), small()
    forward = one.model.forward

    def limited(x):
        if len(x) > fits:
            raise MemoryError
        return forward(x)

    monkeypatch.setattr(one.model, "forward", limited)
    smoothings = begun(one, [Query("smoothgrad", target=k, samples=4) for k in TARGETS])
    list(one.advance([(each, 4) for each in smoothings]))
    assert one.fallbacks == {1: 3, 2: 1}[fits]
    noisy = Noise(IMAGE[0], 0.15, 0).draw(0, 4)
    for smoothing in smoothings:
        theirs = captum_gradient(net, noisy, smoothing.query.target).mean(0)
        assert distance(smoothing.estimate().values, theirs) < 1e-5


def test_nothing_is_taken_when_a_pass_is_given_up_between_two_targets():
    one = Explainer(small(), IMAGE)
    smoothings = begun(one, [Query("smoothgrad", target=k, samples=4) for k in TARGETS])
    steps = one.advance([(each, 4) for each in smoothings])
    next(steps)
    next(steps)
    steps.close()
    assert [smoothing.samples for smoothing in smoothings] == [0] * len(TARGETS)


def test_the_map_of_a_layer_without_a_linear_head_is_captums_mean():
    net = torch.nn.Sequential(small().trunk, torch.nn.Flatten(), torch.nn.Linear(12 * 6 * 9, 4)).eval()
    one = Explainer(net, IMAGE, layers=("0",))
    smoothings = begun(one, [Query("gradcam", target=k, samples=5) for k in range(4)])
    assert len(list(one.advance([(each, 5) for each in smoothings]))) == 4
    noisy = Noise(IMAGE[0], 0.15, 0).draw(0, 5)
    for smoothing in smoothings:
        theirs = LayerGradCam(net, net[0]).attribute(noisy, smoothing.query.target, relu_attributions=True)
        assert distance(smoothing.estimate().values, theirs[:, 0].mean(0).detach()) < 1e-5


def test_prices_count_the_forward_pass_once_and_each_score_once():
    some = [Query("smoothgrad", target=k) for k in TARGETS]
    assert (price_of(some[:1]), price_of(some), price_of([some[0], some[0]])) == (3, 11, 3)
    assert work_of(some) == 50 * 11
    assert work_of([*some, Query("smoothgrad", target=0, seed=1)]) == 50 * 11 + 50 * 3
    assert work_of([Query("rise", rank=k, samples=30) for k in TARGETS]) == 30
    assert work_of([Query("gradcam", rank=k) for k in TARGETS]) == 0
