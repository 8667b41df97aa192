"""Gradients along paths from a baseline, against Captum and their axioms, row by row in mixed batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, InputXGradient, IntegratedGradients
from torch import Tensor, nn

from heatserve.engine import METHODS, Explainer, Query, Smoothing
from heatserve.engine.methods.paths import Mixtures, Path
from tests.engine.networks import difference_of_scores, distance, explainer, oracle, pictures, small

ARCHITECTURES = ("resnet18", "vgg11", "mobilenet_v2")
IMAGE = pictures(1, (24, 36), seed=8)
ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])
DOUBLE = torch.float64


def score(name: str, target: int, contrast: int | None = None) -> Any:
    return difference_of_scores(oracle(name, DOUBLE), target, contrast)


@contextmanager
def double() -> Iterator[None]:
    """A context in which new tensors are float64."""
    torch.set_default_dtype(DOUBLE)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def together(one: Explainer, asked: list[tuple[Tensor, Query]]) -> list[Any]:
    """The answers of explanations that share their chunks, each of them with another number of draws."""
    under_way = [Smoothing(image, query) for image, query in asked]
    while any(each.left for each in under_way):
        list(one.advance([(each, min(2 + k, each.left)) for k, each in enumerate(under_way) if each.left]))
    return [each.estimate() for each in under_way]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_input_x_gradient_is_captums_row_by_row_in_a_mixed_batch(name: str) -> None:
    images = pictures(3).double()
    asked = [[Query("input_x_gradient", target=1)], [Query("gradient", target=4)],
             [Query("gradcam", target=0), Query("input_x_gradient", target=6, contrast=2)]]  # fmt: skip
    _, found = explainer(name, DOUBLE).run(images, asked)
    for row, number, target, contrast in ((0, 0, 1, None), (2, 1, 6, 2)):
        theirs = InputXGradient(score(name, target, contrast)).attribute(images[row : row + 1].requires_grad_(), 0)[0]
        assert distance(found[row][number].values, theirs.detach()) < 1e-9
        assert distance(found[row][number].map, theirs.detach().sum(0)) < 1e-9
    assert METHODS["input_x_gradient"].signed and float(found[0][0].map.min()) < 0 < float(found[0][0].map.max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_integrated_gradients_are_captums_with_the_same_rule_row_by_row_in_a_mixed_batch(name: str) -> None:
    images = pictures(2).double()
    asked = [
        (images[0], Query("integrated_gradients", target=1, samples=12)),
        (images[1], Query("smoothgrad", target=3, samples=4)),
        (images[1], Query("integrated_gradients", target=6, contrast=2, samples=9)),
    ]
    found = together(explainer(name, DOUBLE), asked)
    for number in (0, 2):
        image, query = asked[number]
        method = IntegratedGradients(score(name, query.target, query.contrast))
        with double():  # else its points are float32, and where one lies on a kink of a ReLU 1e-8 makes a difference
            theirs, delta = method.attribute(
                image[None], target=0, n_steps=query.samples, method="riemann_middle", return_convergence_delta=True
            )
        assert found[number].samples_used == query.samples
        assert distance(found[number].values, theirs[0].float()) < 1e-6
        assert distance(found[number].map, theirs[0].sum(0).float()) < 1e-6
        with torch.no_grad():
            y = method.forward_func(torch.stack([image, 0 * image]))[:, 0]
        expected = abs(float(delta) / float(y[0] - y[1]))
        assert found[number].facts["completeness_error"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found[1].facts == {}


@ONCE
@pytest.mark.parametrize("chunk", [1, 2, 5, 64])
def test_the_completeness_error_falls_with_the_points_whatever_the_chunk(chunk: int) -> None:
    one = Explainer(small(activation=nn.Tanh).double(), IMAGE.double(), chunk=chunk)
    errors = [
        one.explain(IMAGE.double(), Query("integrated_gradients", target=2, samples=samples))[0].facts
        for samples in (2, 8, 32)
    ]
    few, some, many = (each["completeness_error"] for each in errors)
    assert 1e-6 < many < some / 4 < few / 16


@ONCE
def test_the_completeness_error_is_no_number_where_both_scores_are_the_same() -> None:
    (found,) = Explainer(small(), IMAGE).explain(0 * IMAGE, Query("integrated_gradients", target=2, samples=3))
    assert not np.isfinite(found.facts["completeness_error"])


@ONCE
def test_an_image_and_its_baseline_cost_two_draws_more_and_count_as_no_samples() -> None:
    query = Query("integrated_gradients", target=2, samples=5)
    smoothing, rows = Smoothing(IMAGE[0], query), []
    assert (smoothing.left, query.work) == (7, 3 * 7) and Query("expected_gradients").work == 3 * 50
    one = Explainer(small(), IMAGE)
    forward = one.model.forward
    one.model.forward = lambda x: rows.append(x.clone()) or forward(x)  # type: ignore[method-assign, func-returns-value]
    while smoothing.left:
        list(one.advance([(smoothing, 1)]))
    seen = torch.cat(rows).detach()
    assert len(seen) == 7 and (smoothing.samples, smoothing.estimate().samples_used) == (5, 5)
    assert torch.equal(seen[0], IMAGE[0]) and not seen[1].any()
    ways = (seen[2:] / IMAGE).mean((1, 2, 3)).sort().values
    torch.testing.assert_close(ways, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))


@ONCE
def test_a_path_that_is_cut_off_is_near_the_whole_one() -> None:
    one = Explainer(small(activation=nn.Tanh), IMAGE, chunk=8)
    query = Query("integrated_gradients", target=2, samples=50)
    steps = [step.estimate() for step in one.smooth(IMAGE[0], query)]
    whole = steps[-1].values
    assert [step.samples_used for step in steps] == [6, 14, 22, 30, 38, 46, 50]
    far = [float((step.values - whole).norm() / whole.norm()) for step in steps]
    assert far[-1] == 0 < max(far) < 0.2


@ONCE
@pytest.mark.parametrize("samples", [7, 50, 64])
def test_the_first_points_of_a_path_lie_evenly_on_both_sides_of_its_middle(samples: int) -> None:
    """Points that begin at the baseline would make the attribution of a path that is cut off that of the baseline."""
    points = Path(torch.ones(1, 1, 1), samples).draw(0, samples).flatten()
    assert abs(float(points[0]) - 0.5) <= 0.5 / samples + 1e-6
    for count in range(1, samples + 1):
        assert abs(float(points[:count].mean()) - 0.5) <= 0.26 / count**0.5 + 0.5 / samples


@ONCE
@pytest.mark.parametrize("samples", [1, 2, 3, 50, 64])
def test_each_point_of_a_path_is_drawn_once(samples: int) -> None:
    ones = torch.ones(1, 1, 1)
    points = Path(ones, samples).draw(0, samples).flatten().sort().values
    torch.testing.assert_close(points, (torch.arange(samples) + 0.5) / samples)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_expected_gradients_are_captums_gradient_shap_of_the_same_draws(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(2).double()
    asked = [
        (images[0], Query("expected_gradients", target=1, samples=3, seed=4)),
        (images[1], Query("integrated_gradients", target=0, samples=2)),
        (images[1], Query("expected_gradients", target=6, contrast=2, samples=4)),
    ]
    found = together(explainer(name, DOUBLE), asked)
    for number in (0, 2):
        image, query = asked[number]
        theirs = []
        for baseline, way in pairs(image, query):
            monkeypatch.setattr(np.random, "uniform", lambda *_, way=way: np.array([way]))
            method = GradientShap(score(name, query.target, query.contrast))
            theirs.append(method.attribute(image[None], baseline[None], n_samples=1, stdevs=0.0, target=0)[0])
        assert distance(found[number].values, torch.stack(theirs).mean(0).detach().float()) < 1e-6
        error = torch.stack(theirs).detach().std(0) / len(theirs) ** 0.5
        assert distance(found[number].standard_error, error.float()) < 1e-5


def pairs(image: Tensor, query: Query) -> list[tuple[Tensor, float]]:
    """The baselines and ways of a query's draws. They are found by planting: a second image shares the random numbers.

    The draws of an image whose channels number its pixels show where each baseline pixel came from.
    """
    _, height, width = image.shape
    numbers = torch.arange(height * width, dtype=DOUBLE).reshape(1, height, width)
    found = []
    for number in range(query.count):
        drawn = Mixtures.of(numbers, query.sampling).draw(number, 1)[0, 0]
        zero = Mixtures.of(torch.stack([numbers[0], 1 + 0 * numbers[0]]), query.sampling)
        moved = zero.weigh(number, torch.ones(1, 2, height, width, dtype=DOUBLE))[0, 0]
        baseline = (numbers[0] - moved).round()
        way = float(((drawn - baseline) / (numbers[0] - baseline))[moved != 0].mean())
        assert sorted(baseline.flatten().tolist()) == list(range(height * width)) and 0 <= way <= 1
        found.append((image.flatten(1)[:, baseline.flatten().long()].reshape(image.shape), way))
    return found


@ONCE
def test_expected_gradients_sum_to_what_the_arrangement_adds_to_the_score_within_error() -> None:
    net, one = (
        small(activation=nn.Tanh).double(),
        Explainer(small(activation=nn.Tanh).double(), IMAGE.double(), chunk=50),
    )
    queries = [Query("expected_gradients", target=2, samples=50, seed=seed) for seed in range(8)]
    found = [one.explain(IMAGE.double(), query)[0] for query in queries]
    sums = torch.stack([each.values.sum() for each in found])
    with torch.no_grad():
        order = [torch.randperm(24 * 36, generator=torch.Generator().manual_seed(k)) for k in range(400)]
        shuffled = torch.stack([IMAGE[0].flatten(1)[:, each].reshape(3, 24, 36) for each in order]).double()
        scores = net(IMAGE.double())[0, 2] - net(shuffled)[:, 2]
    error = float((sums.var() / 8 + scores.var() / 400).sqrt())
    assert abs(float(sums.mean() - scores.mean())) < 4 * error < abs(float(scores.mean()))
    assert all(each.relative_error is not None and float(each.relative_error) > 0 for each in found)


@ONCE
def test_a_draw_between_an_image_and_its_baselines_depends_on_the_seed_and_its_number_alone() -> None:
    sampling = Query("expected_gradients", seed=3).sampling
    whole = Mixtures.of(IMAGE[0], sampling).draw(0, 6)
    torch.testing.assert_close(Mixtures.of(IMAGE[0], sampling).draw(2, 3), whole[2:5])
    other = Mixtures.of(IMAGE[0], Query("expected_gradients", seed=4).sampling).draw(0, 6)
    assert not torch.isclose(whole, other).flatten(1).all(1).any()
    assert len({float(each.std()) for each in whole}) == 6


@ONCE
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_path_in_fewer_bits_is_near_the_exact_one(precision: str) -> None:
    query = Query("integrated_gradients", target=2, samples=8)
    exact, rough = (
        Explainer(small(activation=nn.Tanh), IMAGE, precision=each).explain(IMAGE, query)[0]
        for each in ("float32", precision)
    )
    assert 0 < float((rough.values - exact.values).norm() / exact.values.norm()) < 0.05
    assert abs(rough.facts["completeness_error"] - exact.facts["completeness_error"]) < 0.05
