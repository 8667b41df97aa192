"""Maps of blocks: their means, the error of these means, and the number of samples at which they end."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from heatserve.engine import METHODS, Explainer, Query, Smoothing
from heatserve.engine.methods import BUILT_IN
from heatserve.engine.methods.paths import Mixtures
from heatserve.engine.sampling import Noise
from heatserve.engine.statistic import Statistic, block_means
from tests.engine.networks import captum_gradient, distance, pictures, seeded, small
from tests.engine.test_smoothing import LEVEL, SIGMA, answer, copies, explainer_of_chunk, relative

IMAGE = pictures(1, (24, 36), seed=8)
#: Sides that divide the view of 24 x 36, or leave smaller blocks at one or both edges.
SIDES = (2, 4, 5, 7, 24)
BUILT_IN_NAMES = [row.name for row in BUILT_IN]
TAKEN = (
    "gradient",
    "input_x_gradient",
    "smoothgrad",
    "smoothgrad_squared",
    "expected_gradients",
    "guided_backpropagation",
)


def averaged(values, side):
    """The means over blocks of the last two axes, by sums over slices, in float64."""
    values = np.asarray(values, np.float64)
    sums, counts = values, np.ones(values.shape[-2:])
    for axis in (-2, -1):
        starts = np.arange(0, values.shape[axis], side)
        sums, counts = np.add.reduceat(sums, starts, axis), np.add.reduceat(counts, starts, axis)
    return sums / counts


def samples_of(method, image, count, seed=7, contrast=None, net=None):
    """The attribution of each sample by Captum at the same draws, float64 (count, C, H, W), before any mean."""
    if method == "expected_gradients":
        draws = Mixtures(image[0], seed)
        gradients = captum_gradient(net or small(), draws.draw(0, count), 2, contrast)
        baselines, _ = draws._pairs(0, count)
        return (gradients * (image - baselines)).double().numpy()
    noisy = copies(image, count, seed)
    gradients = captum_gradient(net or small(), noisy, 2, contrast).double().numpy()
    if method == "input_x_gradient":
        return gradients * noisy.double().numpy()
    return gradients**2 if method == "smoothgrad_squared" else gradients


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "method", ["smoothgrad", "gradient", "input_x_gradient", "smoothgrad_squared", "expected_gradients"]
)
def test_value_and_error_are_numpys_over_the_block_means_of_captums_gradients(method, side):
    count = 23
    theirs = averaged(samples_of(method, IMAGE, count, contrast=4), side)
    value, error = theirs.mean(0), theirs.std(0, ddof=1) / count**0.5
    ours = answer(method, contrast=4, samples=count, seed=7, resolution=side)
    assert ours.values.shape == (3, -(-24 // side), -(-36 // side))
    assert distance(ours.values, torch.tensor(value).float()) < 1e-4
    assert distance(ours.standard_error, torch.tensor(error).float()) < 1e-4
    np.testing.assert_allclose(ours.relative_error, relative(value, error), rtol=1e-3)
    summed = method in ("input_x_gradient", "expected_gradients")
    expected = value.sum(0) if summed else np.abs(value).max(0)
    np.testing.assert_allclose(ours.map, expected, atol=1e-4 * np.abs(value).max())


@pytest.mark.parametrize("side", SIDES)
def test_the_means_of_a_blocks_map_are_those_of_the_map_of_pixels(side):
    pixels, blocks = answer(samples=20), answer(samples=20, resolution=side)
    assert distance(blocks.values, torch.from_numpy(averaged(pixels.values, side)).float()) < 1e-5


def test_the_blocks_at_the_edges_are_means_of_the_pixels_that_are_left():
    values = torch.arange(2 * 5 * 7, dtype=torch.float64).reshape(2, 5, 7) ** 2
    found = block_means(values, 3)
    assert found.shape == (2, 2, 3)
    assert torch.allclose(found[:, 1, 2], values[:, 3:, 6:].mean((1, 2)))
    assert torch.allclose(found[:, 0, 2], values[:, :3, 6:].mean((1, 2)))
    assert torch.allclose(found[:, 1, 0], values[:, 3:, :3].mean((1, 2)))
    assert torch.equal(block_means(values, 1), values)
    whole = torch.nn.functional.avg_pool2d(values, (5, 7))
    assert torch.allclose(block_means(values, 7), whole)


def test_pixels_that_are_far_larger_than_their_mean_lose_no_digits():
    """Of a block whose values cancel: sums in float32 would have no digit left."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn((6, 1, 64, 64), generator=generator) * 1e4
    values -= values.double().mean((2, 3), keepdim=True).float()
    values += 1e-3 * torch.arange(1, 7)[:, None, None, None]
    statistic = Statistic("mean", 64)
    statistic.update(values)
    expected = values.double().mean((2, 3)).mean(0)
    assert float((statistic.value()[:, 0, 0].double() - expected).abs().max()) < 1e-9 * 1e4


@pytest.mark.parametrize("side", [4, 5])
def test_with_noise_of_its_own_captums_noise_tunnel_agrees_within_the_errors(side):
    count = 400
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = NoiseTunnel(Saliency(small())).attribute(
            IMAGE, nt_type="smoothgrad", nt_samples=count, stdevs=SIGMA, target=2, abs=False, nt_samples_batch_size=50
        )[0].detach()  # fmt: skip
    ours = answer(samples=count, seed=1, resolution=side)
    z = (ours.values.double().numpy() - averaged(theirs, side)) / (ours.standard_error.double().numpy() * 2**0.5)
    assert np.abs(z).max() < 6
    assert 0.5 < np.square(z).mean() < 2


def test_guided_backpropagation_has_blocks_too():
    count, side = 12, 5
    pixels = [answer("guided_backpropagation", image=copy[None]).values for copy in copies(IMAGE, count, seed=3)]
    theirs = averaged(torch.stack(pixels), side)
    ours = answer("guided_backpropagation", samples=count, seed=3, resolution=side)
    assert distance(ours.values, torch.from_numpy(theirs.mean(0)).float()) < 1e-4
    error = torch.from_numpy(theirs.std(0, ddof=1) / count**0.5).float()
    assert distance(ours.standard_error, error) < 1e-4


def test_one_channel():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 7 * 9, 5)))
    image = pictures(1, (13, 18), seed=2)[:, :1]
    theirs = averaged(captum_gradient(net.eval(), copies(image, 15, seed=4), 2).numpy(), 4)
    (ours,) = Explainer(net, image).explain(image, Query("smoothgrad", target=2, samples=15, seed=4, resolution=4))
    assert ours.values.shape == (1, 4, 5) and ours.map.shape == (4, 5)
    assert distance(ours.values, torch.from_numpy(theirs.mean(0)).float()) < 1e-4
    error = torch.from_numpy(theirs.std(0, ddof=1) / 15**0.5).float()
    assert distance(ours.standard_error, error) < 1e-4


@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad_squared", "expected_gradients"])
def test_the_chunk_changes_nothing_but_rounding(method):
    whole = answer(method, explainer_of_chunk(50), samples=50, seed=4, resolution=5)
    for chunk in (1, 3, 7):
        part = answer(method, explainer_of_chunk(chunk), samples=50, seed=4, resolution=5)
        assert distance(part.values, whole.values) < 1e-5
        assert distance(part.standard_error, whole.standard_error) < 1e-5


def test_each_step_is_the_answer_for_the_samples_so_far_and_company_changes_nothing():
    image, one = IMAGE.double(), Explainer(small().double(), IMAGE.double())
    asked = [Query("smoothgrad", target=t, samples=20, seed=1, resolution=r) for t, r in ((1, 4), (3, 1), (1, 7))]
    together = [Smoothing(image[0], query) for query in asked]
    while any(smoothing.left for smoothing in together):
        list(one.advance([(s, min(3 + k, s.left)) for k, s in enumerate(together) if s.left]))
        for query, smoothing in zip(asked, together):
            so_far = smoothing.estimate()
            (alone,) = one.explain(image, replace(query, samples=smoothing.samples))
            assert distance(so_far.values, alone.values) < 1e-6
            assert distance(so_far.standard_error, alone.standard_error) < 1e-6


# Ending by a standard error


def test_the_samples_end_at_the_first_decision_at_which_the_blocks_error_is_small_enough():
    theirs = averaged(captum_gradient(small(), copies(IMAGE, 60, seed=1), 2), 4)

    def error(n):
        return relative(theirs[:n].mean(0), theirs[:n].std(0, ddof=1) / n**0.5)

    for n in (15, 40):
        asked = error(n) * 1.001
        ends = next(count for count in (10, 12, 15, 18, 22, 27, 33, 40) if error(count) <= asked)
        for chunk in (1, 4, 64):
            (found,) = explainer_of_chunk(chunk).explain(
                IMAGE, Query("smoothgrad", target=2, samples=60, seed=1, standard_error=asked, resolution=4)
            )
            assert (found.samples_used, found.reached) == (ends, True)
            assert float(found.relative_error) <= asked


@cache
def limit():
    """A mean of 20,000 gradients at noise that no seed below draws, float64 (3, 24, 36); and its squared error."""
    draws, total, squares = Noise(IMAGE[0], LEVEL, 2**40), 0, 0
    for first in range(0, 20_000, 500):
        gradients = captum_gradient(small(), draws.draw(first, 500), 2).double()
        total, squares = total + gradients.sum(0), squares + gradients.square().sum(0)
    mean = total / 20_000
    assert float(((squares / 20_000 - mean**2).sum() / 20_000).sqrt() / mean.norm()) < 0.02
    return mean.numpy()


@pytest.mark.parametrize("side", [1, 4, 5])
def test_the_distance_to_the_limit_is_the_error_that_is_stated(side):
    """80 seeds, each ended by a standard error of 0.2: the root mean square of distance / stated error is near 1.

    The error of a block holds the correlation of its pixels.
    """
    true = averaged(limit(), side)
    shares, used = [], []
    for seed in range(80):
        found = answer(samples=400, seed=seed, standard_error=0.2, resolution=side)
        assert found.reached
        actual = np.linalg.norm(found.values.double().numpy() - true) / np.linalg.norm(true)
        shares.append(actual / float(found.relative_error))
        used.append(found.samples_used)
    assert 0.85 < np.mean(np.square(shares)) ** 0.5 < 1.15
    assert np.mean(shares) < 1.1


class Quadratic(nn.Module):
    """The score `sum(x + a x^2 / 2)`, and one that is its opposite: the gradient is `1 + a x`."""

    strength = 4.0

    def forward(self, x):
        score = (x + self.strength * x.square() / 2).flatten(1).sum(1, keepdim=True)
        return torch.cat([score, -score], 1)


def test_noise_that_is_independent_from_pixel_to_pixel_shrinks_with_the_side_of_the_blocks():
    """A closed form: of n samples the error of a pixel is `a s / sqrt(n)`, and that of a block is 1 / side of it."""
    image = 0.5 + 0.01 * IMAGE
    spread = Quadratic.strength * LEVEL * float(image.max() - image.min())
    one, used = Explainer(Quadratic(), image, chunk=50), {}
    for side in (1, 2, 4):
        (found,) = one.explain(image, Query("smoothgrad", target=0, samples=100, resolution=side))
        true = averaged(1 + Quadratic.strength * image[0].double(), side)
        expected = spread / 10 / side * true.size**0.5 / np.linalg.norm(true)
        assert float(found.relative_error) == pytest.approx(expected, rel=0.05)
        assert np.linalg.norm(found.values.numpy() - true) / np.linalg.norm(true) == pytest.approx(expected, rel=0.15)
        query = Query("smoothgrad", target=0, samples=3000, resolution=side, standard_error=float(expected) / 2 * side)
        used[side] = one.explain(image, query)[0].samples_used
    assert used[1] / used[2] == pytest.approx(4, rel=0.25) and used[1] / used[4] == pytest.approx(16, rel=0.35), used


class OfMeans(Quadratic):
    """The quadratic score of the means of blocks of 4 x 4 pixels: all pixels of a block have the same gradient."""

    def forward(self, x):
        return super().forward(nn.functional.avg_pool2d(x, 4))


def test_noise_that_all_pixels_of_a_block_share_does_not_shrink():
    image = 0.5 + 0.01 * IMAGE
    one = Explainer(OfMeans(), image, chunk=50)
    pixels, blocks = (
        one.explain(image, Query("smoothgrad", target=0, samples=100, resolution=side))[0] for side in (1, 4)
    )
    assert float(blocks.relative_error) == pytest.approx(float(pixels.relative_error), rel=1e-4)
    spread = Quadratic.strength * LEVEL * float(image.max() - image.min()) / 4
    true = 1 + Quadratic.strength * averaged(image[0], 4)
    expected = spread / 10 * true.size**0.5 / np.linalg.norm(true)
    assert float(blocks.relative_error) == pytest.approx(expected, rel=0.05)
    assert np.linalg.norm(16 * blocks.values.numpy() - true) / np.linalg.norm(true) == pytest.approx(expected, rel=0.15)


# What is refused


def test_random_means_of_the_input_take_blocks_and_nothing_else():
    assert {name for name, row in METHODS.items() if row.takes_blocks and not name.startswith("added")} >= set(TAKEN)
    for name in (
        "gradcam",
        "cam",
        "vargrad",
        "integrated_gradients",
        "rise",
        "occlusion",
        "scorecam",
        "guided_gradcam",
    ):
        assert Query(name, samples=20).resolution == 1
        with pytest.raises(ValueError, match="resolution belongs to random samples, more than one, of: gradient"):
            Query(name, samples=20, resolution=2)


@pytest.mark.parametrize("query", [{"resolution": 0}, {"resolution": -4}, {"resolution": 2, "samples": 1}])
def test_blocks_of_nothing_and_without_samples_are_refused(query):
    with pytest.raises(ValueError, match="resolution"):
        Query("smoothgrad", **query)


def test_blocks_larger_than_the_image_are_refused():
    assert answer(samples=2, resolution=24).values.shape == (3, 1, 2)
    with pytest.raises(ValueError, match="resolution must be at most 24, the shorter side of the image"):
        answer(samples=2, resolution=25)
