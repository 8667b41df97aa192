"""RISE, occlusion and Score-CAM against Captum, pytorch-grad-cam, closed forms and the authors' formulas in loops."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from captum.attr import FeatureAblation, Occlusion
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from heatserve.engine import METHODS, Explainer, Query, Smoothing, UnsuitableModel, register, sample_seed
from heatserve.engine.methods.occlusion import MOST, windows
from heatserve.engine.methods.rise import CELLS, RandomMasks
from tests.engine.networks import (
    LAYERS,
    SIZE,
    difference_of_scores,
    distance,
    explainer,
    network,
    oracle,
    oracle_layer,
    pictures,
    small,
)

ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])
TWO = pytest.mark.parametrize("name", ["mobilenet_v3_small", "in_place"])
IMAGES = pictures(3)
TARGETS = (7, 2, 4)


class Linear(nn.Module):
    """Scores that are a weighed sum of the input: 4 classes."""

    def __init__(self, size: tuple[int, int], seed: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn((4, 3, *size), generator=generator))
        self.bias = nn.Parameter(torch.tensor([50.0, -3.0, 2.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight) + self.bias


def mixed(one: Explainer, query: Query, row: int, chunk: int) -> Tensor:
    """The answer of a row whose draws share all of their passes with other methods' draws of other pictures."""
    images = IMAGES.to(next(one.model.parameters()).dtype)
    others = [Query("smoothgrad", 1, samples=3), Query("occlusion", 3, samples=9), Query("rise", 0, samples=8, seed=4)]
    ours = one.begin(images[row], query)
    together = [*(one.begin(images[k], other) for k, other in enumerate(others)), ours]
    while ours.left:
        list(one.advance([(some, min(chunk, some.left)) for some in together if some.left]))
    return ours.estimate().values


# RISE


def masks_of(image: Tensor, count: int, seed: int) -> np.ndarray:
    return RandomMasks(image, seed).masks(0, count).double().numpy()


@ONCE
@TWO
@pytest.mark.parametrize("contrast", [None, 5])
def test_rise_is_the_authors_formula_less_the_constant_that_the_mean_score_makes(name, contrast):
    """Petsiuk et al., equation 6, in a loop: `sum y(x m) m / (n p)`; `y - mean y` for y takes the constant out."""
    image, n = IMAGES[1].double(), 25
    score = difference_of_scores(oracle(name, torch.float64), 6, contrast)
    masks = masks_of(image, n, seed=3)
    scores = [float(score(torch.from_numpy(mask)[None, None] * image[None])) for mask in masks]
    paper = sum(y * mask for y, mask in zip(scores, masks)) / (n * 0.5)
    constant = np.mean(scores) * masks.mean(0) / 0.5
    query = Query("rise", target=6, contrast=contrast, samples=n, seed=3)
    ours = mixed(explainer(name, torch.float64), query, 1, chunk=7)
    assert distance(ours.double(), torch.from_numpy((paper - constant) * n / (n - 1))) < 1e-5


@ONCE
def test_the_masks_are_cells_that_are_seen_half_of_the_time_enlarged_bilinearly_and_shifted():
    """By numpy's interpolation between the middles of cells, along one axis and then the other."""
    image = torch.ones(3, 56, 70)
    masks = masks_of(image, 600, seed=9)
    assert masks.shape == (600, 56, 70) and masks.min() == 0 and masks.max() == 1
    # The mean is 1/2 at every place, border and middle alike.
    z = (masks.mean(0) - 0.5) / (masks.std(0) / 600**0.5)
    assert np.abs(z).max() < 5
    # 7 x 7 cells become 64 x 80 pixels, which is 8 x 8 cells of 8 x 10, of which 56 x 70 are cut out.
    middles = [(np.arange(7) + 0.5) * side / 7 - 0.5 for side in (64, 80)]
    for number, mask in enumerate(masks[:5]):
        generator = torch.Generator().manual_seed(sample_seed(9, number))
        cells = (torch.rand((7, 7), generator=generator) < 0.5).double().numpy()
        tall = np.stack([np.interp(np.arange(64), middles[0], column) for column in cells.T], 1)
        large = np.stack([np.interp(np.arange(80), middles[1], row) for row in tall])
        top, left = (int(torch.randint(side, (), generator=generator)) for side in (8, 10))
        np.testing.assert_allclose(mask, large[top : top + 56, left : left + 70], atol=1e-5)
    # Far apart, masks know nothing of each other; neighbours are alike.
    far = np.corrcoef(masks[:, 5, 5], masks[:, 45, 60])[0, 1]
    near = np.corrcoef(masks[:, 5, 5], masks[:, 6, 6])[0, 1]
    assert abs(far) < 0.15 and near > 0.9


@ONCE
def test_a_mask_depends_on_the_seed_and_its_number_alone():
    image = torch.ones(3, 40, 30)
    draws = RandomMasks(image, 5)
    whole = draws.masks(0, 12)
    assert torch.equal(draws.masks(7, 3), whole[7:10])
    assert torch.equal(RandomMasks(0 * image, 5).masks(11, 1), whole[11:])
    assert not torch.equal(RandomMasks(image, 6).masks(0, 12), whole)
    assert len({tuple(mask.flatten().tolist()) for mask in whole}) == 12


@ONCE
def test_for_a_linear_network_rise_tends_to_the_weights_spread_by_the_covariance_of_the_masks():
    """`E map_i = sum_j w_j x_j Cov(m_j, m_i) / p`, whatever the bias; z-scores by the stated standard error."""
    image = pictures(1, (28, 28), seed=2)
    net = Linear((28, 28))
    others = masks_of(image[0], 6000, seed=77).reshape(6000, -1)
    seen = (net.weight[2] * image[0]).sum(0).double().flatten().detach().numpy()
    centred = others - 0.5
    expected = centred.T @ (centred @ seen) / (len(others) * 0.5)
    (found,) = Explainer(net, image).explain(image, Query("rise", target=2, samples=4000))
    ours, error = found.values.double().flatten().numpy(), found.standard_error.double().flatten().numpy()
    z = (ours - expected) / (error * (1 + 4000 / 6000) ** 0.5)
    assert np.abs(z).max() < 5 and 0.4 < (z**2).mean() < 2
    assert float(found.relative_error) < 0.25
    assert np.corrcoef(ours, expected)[0, 1] > 0.95


@ONCE
def test_a_constant_in_the_score_changes_nothing_in_rise():
    image, net = pictures(1, (28, 28), seed=2), Linear((28, 28))
    (before,) = Explainer(net, image).explain(image, Query("rise", target=1, samples=50))
    net.bias.data += 1000
    (after,) = Explainer(net, image).explain(image, Query("rise", target=1, samples=50))
    assert distance(after.values, before.values) < 1e-3
    assert distance(after.standard_error, before.standard_error) < 1e-3


@ONCE
def test_the_standard_error_of_rise_is_its_spread_over_seeds():
    """50 seeds of 40 masks: the mean square of the errors against the variance of the maps, over the pixels."""
    image = pictures(1, (24, 36), seed=8)
    one = Explainer(small(), image, chunk=40)
    found = [one.explain(image, Query("rise", target=2, samples=40, seed=seed))[0] for seed in range(50)]
    spread = torch.stack([each.values for each in found]).var(0).mean()
    stated = torch.stack([each.standard_error for each in found]).square().mean()
    assert float((stated / spread).sqrt()) == pytest.approx(1, abs=0.12)
    truth = torch.stack([each.values for each in found]).double().mean(0)
    true = torch.stack([(each.values - truth).norm() / truth.norm() for each in found]).median()
    assert float(torch.stack([each.relative_error for each in found]).median()) == pytest.approx(float(true), rel=0.4)


@ONCE
def test_the_standard_error_of_rise_is_its_spread_at_three_masks_too():
    """400 seeds of 3 masks. The mean score is of the same masks, which makes the plain estimate 0.82 of the spread."""
    image = pictures(1, (24, 36), seed=8)
    one = Explainer(small(), image, chunk=3)
    found = [one.explain(image, Query("rise", target=2, samples=3, seed=seed))[0] for seed in range(400)]
    spread = torch.stack([each.values for each in found]).var(0).mean()
    stated = torch.stack([each.standard_error for each in found]).square().mean()
    assert float((stated / spread).sqrt()) == pytest.approx(1, abs=0.08)
    assert not one.explain(image, Query("rise", samples=9, standard_error=9.0))[0].reached  # too few to know


@ONCE
def test_score_cam_of_a_contrast_with_the_target_itself_is_empty():
    """The score is 0 whatever is hidden: a mean of the activations would look like a map of the class."""
    image = pictures(1, (24, 36), seed=8)
    (found,) = Explainer(small(), image).explain(image, Query("scorecam", target=2, contrast=2))
    assert not bool(found.values.any())


@ONCE
def test_rise_ends_at_a_standard_error_whatever_the_chunk_is():
    image = pictures(1, (24, 36), seed=8).double()
    ended = []
    for chunk in (1, 7, 64):
        one = Explainer(small().double(), image, chunk=chunk)
        ended += one.explain(image, Query("rise", target=2, samples=900, standard_error=0.3))
    assert {each.samples_used for each in ended} == {ended[0].samples_used} and 10 <= ended[0].samples_used < 900
    assert all(each.reached and float(each.relative_error) <= 0.3 for each in ended)
    with pytest.raises(ValueError, match="samples must be at least 2 for rise"):
        Query("rise", samples=1)


# Occlusion


@cache
def captum_occlusion(name: str, row: int, target: int, contrast: int | None = None) -> Tensor:
    """(H, W), by Captum, with the window and stride that this view has."""
    stride = tuple(-(-side // 14) for side in SIZE)
    score = difference_of_scores(oracle(name, torch.float64), target, contrast)
    found = Occlusion(lambda x: score(x)[:, 0]).attribute(
        IMAGES[row : row + 1].double(), (3, *(2 * side for side in stride)), (3, *stride), baselines=0
    )
    assert torch.equal(found[0, 0], found[0, 2])
    return found[0, 0]


@ONCE
@TWO
def test_occlusion_of_each_row_in_a_mixed_batch_is_captums(name):
    for row, target in enumerate(TARGETS[:2]):
        contrast = None if row else 5
        ours = mixed(explainer(name, torch.float64), Query("occlusion", target=target, contrast=contrast), row, 7)
        assert distance(ours.double(), captum_occlusion(name, row, target, contrast)) < 1e-6


@ONCE
@pytest.mark.parametrize("size", [(28, 42), (32, 32), (15, 29), (9, 5), (1, 3)])
def test_for_a_linear_network_occlusion_is_the_sum_of_weights_times_input_over_windows(size):
    image, net = pictures(1, size, seed=6), Linear(size)
    part = (net.weight[1] * image[0]).sum(0).detach()
    total, covering = torch.zeros(size), torch.zeros(size)
    stride = [-(-side // 14) for side in size]
    for top in range(0, size[0], stride[0]):
        for left in range(0, size[1], stride[1]):
            if (top and top + stride[0] >= size[0]) or (left and left + stride[1] >= size[1]):
                continue  # the window before reaches the border already
            window = (slice(top, top + 2 * stride[0]), slice(left, left + 2 * stride[1]))
            total[window] += part[window].sum()
            covering[window] += 1
    assert covering.min() >= 1
    draws = METHODS["occlusion"].draws.of(image[0], Query("occlusion").sampling)
    assert draws.count == 1 + len(windows(*size)) <= MOST
    scores = net(draws.draw(0, draws.count))[:, 1].detach()
    assert distance(draws.combine(scores), total / covering) < 1e-4


@ONCE
def test_where_windows_are_the_whole_grid_of_pixels_occlusion_is_captums_feature_ablation():
    """A view so small that a window is cut to two pixels a side: each window is a feature, and their mean the map."""
    image, net = pictures(1, (4, 4), seed=6), Linear((4, 4))
    done = torch.zeros(4, 4), torch.zeros(4, 4)
    for (top, bottom), (left, right) in windows(4, 4):
        mask = torch.zeros(1, 1, 4, 4, dtype=torch.long)
        mask[..., top:bottom, left:right] = 1
        drop = FeatureAblation(lambda x: net(x)[:, 3]).attribute(image, feature_mask=mask)[0, 0][mask[0, 0] == 1][0]
        done[0][top:bottom, left:right] += drop
        done[1][top:bottom, left:right] += 1
    draws = METHODS["occlusion"].draws.of(image[0], Query("occlusion").sampling)
    scores = net(draws.draw(0, draws.count))[:, 3]
    assert distance(draws.combine(scores), done[0] / done[1]) < 1e-4


@ONCE
def test_windows_go_from_the_middle_to_the_gaps_and_an_early_end_is_like_the_whole():
    order = windows(224, 224)
    assert len(order) == len(set(order)) == 169
    assert order[0] == ((96, 128), (96, 128))
    assert {tuple(low for low, _ in one) for one in order[1:5]} == {(0, 0), (0, 192), (192, 0), (192, 192)}
    centres = np.array([[sum(axis) / 2 for axis in one] for one in order])
    for done in (9, 25, 60):
        gaps = np.abs(centres[:, None] - centres[None, :done]).max(2).min(1)
        assert gaps.max() <= 224 / done**0.5 + 16, done
    image, net = torch.ones(1, 3, 56, 84), Linear((56, 84))
    net.weight.data.zero_()
    net.weight.data[2, :, 36:44, 60:72] = 1
    whole, half, tenth = (
        Explainer(net, image).explain(image, Query("occlusion", target=2, samples=count))[0] for count in (MOST, 85, 18)
    )
    assert np.corrcoef(half.values.flatten(), whole.values.flatten())[0, 1] > 0.85
    assert np.corrcoef(tenth.values.flatten(), whole.values.flatten())[0, 1] > 0.4
    assert whole.facts["share_done"] == 1 and whole.samples_used == whole.query.samples == whole.query.count
    assert tenth.facts["share_done"] == pytest.approx(18 / whole.samples_used) and tenth.query.samples == 18


# Score-CAM


@pytest.fixture
def enlarging_by_middles(monkeypatch):
    """pytorch-grad-cam with the enlarging of the authors' code, which takes corners for middles of pixels."""
    monkeypatch.setattr(
        torch.nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear", align_corners=False)
    )


def of_pytorch_grad_cam(net: nn.Module, module: nn.Module, image: Tensor, target: int) -> Tensor:
    """Their map before its scaling, (h, w)."""
    with pytorch_grad_cam.ScoreCAM(net, [module]) as one:
        one(image, [ClassifierOutputTarget(target)])
        recorded = one.activations_and_grads.activations[0].numpy()
        found = one.get_cam_image(image, module, [ClassifierOutputTarget(target)], recorded, None, False)
    return torch.from_numpy(np.asarray(found, np.float64))[0].relu()


@ONCE
@TWO
@pytest.mark.usefixtures("enlarging_by_middles")
def test_scorecam_of_each_row_in_a_mixed_batch_is_pytorch_grad_cams(name):
    layer, filled = LAYERS[name][1], 0
    for row, target in enumerate(TARGETS[:2]):
        net, module = oracle(name, torch.float64), oracle_layer(name, layer, torch.float64)
        theirs = of_pytorch_grad_cam(net, module, IMAGES[row : row + 1].double(), target)
        query = Query("scorecam", target=target, layer=layer, samples=999)
        ours = mixed(explainer(name, torch.float64), query, row, 64)
        assert distance(ours.double(), theirs) < 1e-4
        filled += int(ours.max() > 0)
    assert filled, "maps of nothing prove nothing"


@ONCE
def test_where_nothing_is_enlarged_scorecam_is_pytorch_grad_cams_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 9, 3, 1, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    with torch.random.fork_rng():
        torch.manual_seed(4)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.7)
    image = pictures(1, (16, 20), seed=3).double()
    net = net.double().eval()
    theirs = of_pytorch_grad_cam(net, net[1], image, 3)
    (ours,) = Explainer(net, image, layers=["1"]).explain(image, Query("scorecam", target=3))
    assert ours.facts == {"share_done": 1.0} and ours.samples_used == ours.query.samples == 9
    assert ours.values.max() > 0 and distance(ours.values.double(), theirs) < 1e-5


def loop_of_the_authors(name: str, layer: str, image: Tensor, target: int, channels: int | None) -> Tensor:
    """Wang et al., algorithm 1, a channel at a time; the baseline is a picture of zeros, whose score cancels.

    channels: how many, those with the largest L2 norm; None for all.
    """
    net, taken = oracle(name, torch.float64), []
    handle = oracle_layer(name, layer, torch.float64).register_forward_hook(lambda _m, _i, out: taken.append(out[0]))
    net(image)
    handle.remove()
    maps = taken[0]
    chosen = np.argsort(-maps.flatten(1).norm(dim=1).numpy(), kind="stable")[:channels]
    baseline = float(net(torch.zeros_like(image))[0, target])
    increases = []
    for channel in chosen:
        mask = nn.functional.interpolate(maps[None, channel : channel + 1], image.shape[2:], mode="bilinear")
        if mask.max() > mask.min():
            mask = (mask - mask.min()) / (mask.max() - mask.min())
        increases.append(float(net(image * mask)[0, target]) - baseline)
    weights = np.exp(np.array(increases) - max(increases))
    weights /= weights.sum()
    return sum(weight * maps[channel] for weight, channel in zip(weights, chosen)).relu()


@ONCE
@TWO
@pytest.mark.parametrize(("count", "chunk"), [(None, 64), (10, 1), (10, 7)])
def test_scorecam_is_the_authors_algorithm_over_the_channels_that_were_done(name, count, chunk):
    image, layer = IMAGES[2:].double(), LAYERS[name][1]
    theirs = loop_of_the_authors(name, layer, image, 4, count)
    one = explainer(name, torch.float64)
    before, one.chunk = one.chunk, chunk
    try:
        (ours,) = one.explain(image, Query("scorecam", target=4, layer=layer, samples=count or 999))
    finally:
        one.chunk = before
    channels = {"mobilenet_v3_small": 40, "in_place": 24}[name]
    assert ours.facts["share_done"] == (count or channels) / channels
    assert distance(ours.values.double(), theirs) < 1e-5


@ONCE
def test_scorecam_has_one_layer_and_takes_the_default_one():
    one = explainer("resnet18")
    assert one.layer_of(Query("scorecam")) == "layer4" and one.layer_of(Query("rise")) is None
    assert one.explain(IMAGES[:1], Query("scorecam", samples=4))[0].values.shape == (2, 3)
    with pytest.raises(UnsuitableModel, match="scorecam has one layer"):
        one.layer_of(Query("scorecam", layer="layer3+layer4"))
    with pytest.raises(UnsuitableModel, match="'layer1' is not tapped"):
        one.layer_of(Query("scorecam", layer="layer1"))


# Shared by all


@pytest.mark.parametrize("method", ["rise", "occlusion", "scorecam"])
def test_the_chunk_changes_nothing_but_rounding(method):
    image = IMAGES[:1].double()
    found = []
    for chunk in (1, 7, 300):
        one = Explainer(network("in_place").double(), image, chunk=chunk)
        found += one.explain(image, Query(method, target=3, samples=60))
    for one in found[1:]:
        assert one.query == found[0].query and one.facts == found[0].facts
        assert distance(one.values.double(), found[0].values.double()) < 1e-6
        if method == "rise":
            assert distance(one.standard_error, found[0].standard_error) < 1e-4


@ONCE
@pytest.mark.parametrize("method", ["rise", "occlusion", "scorecam"])
def test_a_draw_costs_a_forward_pass_and_records_no_graph(method):
    one = Explainer(network("in_place"), IMAGES[:1], chunk=8)
    graphs = []
    handle = one.model.register_forward_hook(lambda _m, _i, scores: graphs.append(scores.requires_grad))
    one.explain(IMAGES[:1], Query(method, samples=20))
    handle.remove()
    assert set(graphs) == {False} and Query(method, samples=20).work == 20


@ONCE
def test_a_method_of_an_extension_may_have_masks_or_a_finite_list_and_must_bring_what_they_need():
    row = METHODS["occlusion"]
    with pytest.raises(ValueError, match="its draws must have masks, mean_mask"):
        register(type(row)("odd", "", "", "score", row.attribute, row.reduce, draws=row.draws, statistic="covariance"))
    with pytest.raises(ValueError, match="belong to a method of the score"):
        register(type(row)("odd", "", "", "input", row.attribute, row.reduce, statistic="combined"))
    with pytest.raises(ValueError, match="belong to a method of the score"):
        register(type(row)("odd", "", "", "layer", row.attribute, row.reduce, prepare=row.attribute))


@ONCE
def test_nothing_is_presentable_before_there_is_a_value():
    smoothing = Smoothing(IMAGES[0], Query("occlusion", target=1))
    assert not smoothing.presentable
    list(explainer("resnet18").advance([(smoothing, 2)]))
    assert smoothing.presentable and smoothing.estimate().values.shape == SIZE
    assert CELLS == 7


def test_scores_are_read_in_float32_whatever_the_precision_of_gradients_is():
    """bfloat16 has steps of 1/16 at a score of 12: windows that lower it by less would show nothing."""
    image, net = pictures(1, (28, 28), seed=4), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 28 * 28, 3))
    torch.nn.init.normal_(net[1].weight, std=1e-3)
    torch.nn.init.constant_(net[1].bias, 12.0)
    exact, coarse = (Explainer(net, image, precision=precision) for precision in ("float32", "bfloat16"))
    for method in ("occlusion", "rise"):
        query = Query(method, target=1, samples=40)
        (expected,), (found,) = exact.explain(image, query), coarse.explain(image, query)
        assert bool(expected.values.any())
        torch.testing.assert_close(found.values, expected.values)
