"""A precision's bias and noise are told apart, where both are known."""

import pytest
import torch

from devtools.bench import document, smoothgrad
from devtools.bench import fidelity as measured
from devtools.bench.fidelity import Fidelity, common, fidelity
from devtools.bench.networks import Network
from devtools.bench.results import Result
from devtools.bench.smoothgrad import errors
from heatserve.engine import Attribution, Query
from tests.engine.networks import pictures, small


class Known:
    """Stands in for an explainer: a true map, a bias, and noise of a known size for each sample.

    A share of the noise is that of the other precision at the same noisy copies.
    """

    def __init__(self, bias, spread, own=0.0):
        # A seed that no noise has: the map would be in the noise as well.
        true = torch.randn(3, 60, 60, generator=torch.Generator().manual_seed(12345))
        self.value = true + bias * true.flip(2)
        self.spread, self.own, self.size = spread, own, float(true.norm())

    def explain(self, images, query):
        shared, own = (
            torch.randn((query.samples, *self.value.shape), generator=torch.Generator().manual_seed(seed))
            for seed in (query.seed, query.seed + 100)
        )
        noise = (self.spread * shared + self.own * own) * self.size / self.value.numel() ** 0.5
        error = noise.std(0) / query.samples**0.5
        return [Attribution(Query("smoothgrad", target=0), self.value + noise.mean(0), query.samples, error)]


@pytest.mark.parametrize("bias", [0.0, 0.08, 0.3])
def test_the_bias_is_what_no_number_of_samples_takes_away(bias):
    found = fidelity(Known(bias, 4.0, own=2.0), Known(0.0, 4.0), torch.zeros(3, 60, 60), 0, 40)
    assert found.bias == pytest.approx(bias, abs=0.03)
    assert found.spread == pytest.approx(20**0.5, rel=0.02)
    # The whole difference would have been taken for bias: it holds noise of its own, which samples do take away.
    assert found.difference > 0.25


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_the_total_error_is_that_of_maps_against_the_truth_itself(bias):
    known, exact = Known(bias, 4.0, own=2.0), Known(0.0, 4.0)
    found = fidelity(known, exact, torch.zeros(3, 60, 60), 0, 20)
    # The true map is known here: no estimate from parts is in this figure. The seeds are others.
    maps = [known.explain(None, Query("smoothgrad", target=0, samples=8, seed=seed))[0].values for seed in range(9, 49)]
    squares = sum(float((values - exact.value).square().sum()) for values in maps) / len(maps)
    assert found.error(8) == pytest.approx(squares**0.5 / float(exact.value.norm()), rel=0.02)


def test_the_square_of_a_bias_is_right_on_average_even_where_it_is_smaller_than_the_noise():
    generator = torch.Generator().manual_seed(0)
    bias = torch.full((400,), 0.05)  # of squared size 1, beside noise of squared size 4

    def parts():
        return [bias + 0.1 * torch.randn(400, generator=generator) for _ in range(measured.PARTS)]

    estimates = torch.tensor([common(parts()) for _ in range(500)])
    standard_error = float(estimates.std()) / len(estimates) ** 0.5
    assert standard_error < 0.03
    assert abs(float(estimates.mean()) - 1) < 3 * standard_error
    # The parts' whole differences are not: they have the noise as well.
    whole = torch.tensor([float(part.square().sum()) for _ in range(50) for part in parts()])
    assert float(whole.mean()) == pytest.approx(1 + 4, rel=0.05)


def test_a_precision_that_is_exact_has_no_bias_whatever_its_noise():
    found = fidelity(Known(0.0, 4.0), Known(0.0, 4.0), torch.zeros(3, 60, 60), 0, 10)
    assert (found.bias, found.difference) == (0.0, 0.0)
    assert found.rank_correlation == pytest.approx(1)


def test_what_parts_have_in_common_is_not_their_noise():
    same = torch.ones(100)
    assert common([same, same, same]) == pytest.approx(100)
    assert common([same, -same]) == pytest.approx(-100)
    assert measured.PARTS >= 2


def test_samples_for_an_error_are_those_that_give_it():
    one = Fidelity(bias=0.3, spread=4.0, difference=0.5, rank_correlation=0.9, samples=50)
    needed = one.samples_for(0.7)
    assert needed is not None and one.error(needed) == pytest.approx(0.7)
    assert one.samples_for(0.3) is None
    assert [line.unit for line in errors("small", "bfloat16", one, 0.7)] == ["%", "%", ""]
    assert len(errors("small", "bfloat16", one, 0.2)) == 2


def test_the_suite_prints_bias_error_and_samples_of_every_precision_and_the_document_shows_them(monkeypatch):
    monkeypatch.setattr(smoothgrad, "NETWORKS", {"lite0": Network(small, "trunk")})
    monkeypatch.setattr(smoothgrad, "photograph", lambda: pictures(1))
    monkeypatch.setattr(smoothgrad, "SAMPLES", 4)
    found = smoothgrad.measure("lite0", 0, 1, lambda share: None, part=3)
    shown = [line for line in found if line.what.startswith(document.ERRORS)]
    lines = document._table(shown)
    for precision in smoothgrad.PRECISIONS:
        assert any(line.startswith(f"| SmoothGrad, bias of {precision}: of the true map's size |") for line in lines)
        assert any(line.startswith(f"| SmoothGrad, error of n = 4 in {precision}: of the") for line in lines)
    assert any("samples in float32 for float32's error" in line and "4.0" in line for line in lines)
    (same_error,) = [line for line in found if "to the total error" in line.what]
    assert same_error.detail["samples"] > 0


@pytest.mark.parametrize("what", ["samples in float32: {}", "bias: {}, of the map", "size ({})"])
def test_one_measurement_of_two_networks_is_one_row_of_the_document(what):
    found = [Result(what.format(name), value, "%") for name, value in (("lite0", 1.0), ("resnet50", 2.0))]
    lines = document._table(found)
    assert len(lines) == 3 and lines[-1].endswith("| 1.0 % | 2.0 % |")
