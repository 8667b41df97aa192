"""Sums of few bits, and ends by a standard error, against numpy in float64."""

import numpy as np
import pytest
import torch
from scipy import stats

from heatserve.engine import Explainer, Query, Smoothing
from heatserve.engine.smoothing import FEWEST
from heatserve.engine.statistic import Statistic
from tests.engine.networks import distance, pictures, small

IMAGE = pictures(1, (24, 36), seed=8)
#: For what has no network.
ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])


def squared_errors_of_variance(x):
    """Of the variance that is divided by n; scipy's are of the one divided by n - 1."""
    n, unbiased = len(x), x.var(0, ddof=1)
    least = 2 * unbiased**2 / (n * (n - 1))
    return ((n - 1) / n) ** 2 * np.maximum(stats.kstatvar(x - x.mean(0), axis=0), least)


def of_numpy(kind, samples):
    """The statistic and its standard error, in float64."""
    x = samples.double().numpy()
    x = x**2 if kind == "mean_square" else x
    if kind == "variance":
        return x.var(0), np.sqrt(squared_errors_of_variance(x))
    return x.mean(0), x.std(0, ddof=1) / len(x) ** 0.5


def drawn(count, centre, spread, first=0.0):
    x = np.random.default_rng(3).standard_normal((count, 40)) * spread + centre
    x[0] += first
    return torch.from_numpy(x.astype(np.float32))


@ONCE
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("kind", ["mean", "mean_square", "variance"])
@pytest.mark.parametrize(
    ("samples", "tolerance"),
    [
        (drawn(200, 1.0, 1.0), 1e-5),
        (drawn(200, 0.0, 1e-8), 1e-5),
        (drawn(200, 1e-12, 1e-12), 1e-5),
        (drawn(200, 0.0, 1e6), 1e-5),
        (drawn(200, 1e4, 100.0), 1e-4),
        (drawn(200, 0.0, 1.0, first=100.0), 2e-4),
    ],
    ids=["ordinary", "tiny", "1e-12", "huge", "far from 0", "far from the first"],
)
def test_running_sums_give_what_numpy_gives_in_float64(kind, samples, tolerance, chunk):
    statistic = Statistic(kind)
    for part in samples.split(chunk):
        statistic.update(part)
    value, error = of_numpy(kind, samples)
    assert distance(statistic.value().double(), torch.from_numpy(value)) < tolerance
    assert distance(statistic.standard_error().double(), torch.from_numpy(error)) < tolerance


@ONCE
@pytest.mark.parametrize("true", [0.1, 1.0, 3.0])
def test_the_relative_error_is_that_of_the_true_value_however_noisy_the_mean_is(true):
    """20 samples of 40,000 numbers around 1: the error is `spread / sqrt(20)`, and the mean's own size holds it too."""
    x = torch.randn((20, 40_000), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    statistic = Statistic("mean")
    statistic.update(1 + true * 20**0.5 * x)
    assert float(statistic.relative_error()) == pytest.approx(true, rel=0.05)


@ONCE
@pytest.mark.parametrize("kind", ["mean", "mean_square", "variance"])
def test_the_relative_error_of_every_statistic_is_its_spread_over_repetitions(kind):
    """400 repetitions of 30 samples, against a reference of all 12,000."""
    scale = torch.linspace(0.5, 2, 300, dtype=torch.float64)
    x = scale * (0.5 + torch.randn((400, 30, 300), generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    stated, values = [], []
    for samples in x:
        statistic = Statistic(kind)
        statistic.update(samples)
        stated.append(float(statistic.relative_error()))
        values.append(statistic.value().double())
    reference = Statistic(kind)
    reference.update(x.flatten(0, 1))
    true = torch.stack(values) - reference.value().double()
    true = true.square().sum(1).mean().sqrt() / reference.value().double().norm()
    assert np.median(stated) == pytest.approx(float(true), rel=0.1)


@ONCE
@pytest.mark.parametrize("count", [4, 10, 30])
def test_the_squared_error_of_a_variance_is_right_on_average_at_any_number_of_samples(count):
    """Exponential numbers: `Var(k2) = kappa4 / n + 2 kappa2^2 / (n - 1)`, with kappa4 = 6 and kappa2 = 1."""
    generator = torch.Generator().manual_seed(4)
    statistic = Statistic("variance")
    statistic.update(torch.empty((count, 400_000), dtype=torch.float64).exponential_(generator=generator))
    relative = statistic.relative_error() ** 2
    stated = relative / (1 + relative) * statistic.size() ** 2 / 400_000
    true = ((count - 1) / count) ** 2 * (6 / count + 2 / (count - 1))
    assert float(stated) == pytest.approx(true, rel=0.05)


@ONCE
@pytest.mark.parametrize("count", [2, 3])
def test_three_samples_of_a_variance_state_no_error_and_have_reached_none(count):
    statistic = Statistic("variance")
    statistic.update(drawn(count, 0.0, 1.0))
    assert statistic.relative_error().isnan() and bool(statistic.standard_error().isnan().all())
    query = Query("vargrad", target=2, samples=count, standard_error=1.0)
    (found,) = Explainer(small(), IMAGE).explain(IMAGE, query)
    assert found.relative_error.isnan() and not found.reached


@ONCE
def test_a_variance_has_reached_no_error_before_ten_samples_unless_fewer_are_asked_for():
    one = Explainer(small(), IMAGE)
    cut_off, few = (
        Smoothing(IMAGE[0], Query("vargrad", target=2, samples=count, standard_error=1000.0)) for count in (50, 6)
    )
    list(one.advance([(cut_off, 6), (few, 6)]))
    assert (cut_off.estimate().reached, few.estimate().reached) == (False, True)


@ONCE
def test_the_variance_of_a_coin_has_an_error_although_its_estimate_lies_below_zero():
    """-1 and 1 in turns: `2 / (n (n - 1))` is the least that the variance of a variance can be."""
    statistic = Statistic("variance")
    statistic.update(torch.tensor([[-1.0], [1.0]]).repeat(5, 1))
    assert float(statistic.standard_error()) == pytest.approx((2 / 90) ** 0.5)


@ONCE
def test_where_a_value_is_no_larger_than_its_noise_its_relative_error_is_infinite():
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    statistic = Statistic("mean")
    statistic.update(x)
    assert float(statistic.relative_error()) == float("inf")


@ONCE
@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad_squared", "vargrad"])
@pytest.mark.parametrize("scale", [1e-12, 1e-18])
def test_a_gradient_of_next_to_nothing_has_the_relative_error_of_the_same_gradient_at_its_usual_size(method, scale):
    found = []
    for factor in (1.0, scale):
        net = small()
        net.linear.weight.data *= factor
        found += Explainer(net, IMAGE, chunk=10).explain(IMAGE, Query(method, target=2, samples=20))
    usual, tiny = (float(answer.relative_error) for answer in found)
    assert usual > 0 and tiny == pytest.approx(usual, rel=1e-3)


@ONCE
@pytest.mark.parametrize("kind", ["mean", "variance"])
def test_a_small_spread_far_from_zero_is_not_lost(kind):
    samples, statistic = drawn(50, 1e4, 0.02), Statistic(kind)
    for part in samples.split(4):
        statistic.update(part)
    value, error = of_numpy(kind, samples)
    np.testing.assert_allclose(statistic.value().numpy(), value, rtol=1e-5)
    np.testing.assert_allclose(statistic.standard_error().numpy(), error, rtol=1e-4)


@ONCE
def test_many_chunks_add_no_error_of_their_own():
    samples, statistic = drawn(6000, 3.0, 1.0), Statistic("variance")
    for part in samples.split(1):
        statistic.update(part)
    value, error = of_numpy("variance", samples)
    assert distance(statistic.value().double(), torch.from_numpy(value)) < 5e-7
    assert distance(statistic.standard_error().double(), torch.from_numpy(error)) < 5e-7


def test_what_ended_is_done_and_takes_no_further_samples():
    one, smoothing = Explainer(small(), IMAGE), Smoothing(IMAGE[0], Query("vargrad", target=2, standard_error=9.0))
    list(one.advance([(smoothing, FEWEST - 1)]))
    assert smoothing.left == 50 - FEWEST + 1
    list(one.advance([(smoothing, 1)]))
    assert (smoothing.left, smoothing.presentable, smoothing.estimate().reached) == (0, True, True)


def test_one_that_ended_leaves_another_in_the_same_pass_alone():
    one = Explainer(small(), IMAGE)
    ends, goes_on = (
        Smoothing(IMAGE[0], Query("smoothgrad", target=2, samples=30, standard_error=error)) for error in (9.0, 1e-6)
    )
    list(one.advance([(ends, FEWEST), (goes_on, FEWEST)]))
    assert (ends.left, goes_on.left) == (0, 30 - FEWEST)
    assert torch.equal(ends.estimate().values, goes_on.estimate().values)
