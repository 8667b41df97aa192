"""Fixed sizes of passes, as CUDA has them, forced upon the CPU: padding changes no answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import heatserve.engine.explainer as explainers
from heatserve.engine import METHODS, Explainer, Query, warm
from heatserve.engine.room import Room
from heatserve.engine.sampling import Noise
from heatserve.engine.sizes import SIZES, fitting, padded, sizes_of
from heatserve.engine.steps import finish
from tests.engine.networks import captum_gradient, distance, pictures, small

pytestmark = pytest.mark.fast_path

IMAGES = pictures(3, (24, 36), seed=8)


class Counted:
    """A network's forward passes by their number of rows."""

    def __init__(self, model: nn.Module) -> None:
        self.rows: list[int] = []
        model.register_forward_pre_hook(lambda _, inputs: self.rows.append(len(inputs[0])))


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explainers, "sizes_of", lambda device: SIZES)


@pytest.fixture
def one(fixed: None) -> Iterator[tuple[Explainer, Counted]]:
    model = small()
    explainer = Explainer(model, IMAGES[:1], chunk=16)
    yield explainer, Counted(model)
    explainer.close()


def test_cuda_has_fixed_sizes_and_a_cpu_has_none() -> None:
    assert sizes_of(torch.device("cuda")) == SIZES == (1, 2, 4, 8, 16, 32, 64)
    assert sizes_of(torch.device("cpu")) == ()
    assert [fitting(most, SIZES) for most in (1, 3, 4, 63, 64, 100)] == [1, 2, 4, 32, 64, 64]
    assert fitting(5, ()) == 5


def test_a_pass_is_padded_by_its_last_row_up_to_the_next_size() -> None:
    queries = [[Query("gradient", target=row)] for row in range(3)]
    images, asked = padded(IMAGES, queries, SIZES)
    assert torch.equal(images, torch.cat([IMAGES, IMAGES[2:]])) and asked == [*queries, []]
    same, as_they_were = padded(IMAGES, queries, ())
    assert same is IMAGES and as_they_were is queries
    more, _ = padded(IMAGES.repeat(40, 1, 1, 1), [[]] * 120, SIZES)
    assert len(more) == 120


@pytest.mark.parametrize("samples", [3, 7, 21])
def test_padding_rows_count_in_no_statistic(one: tuple[Explainer, Counted], samples: int) -> None:
    explainer, counted = one
    (found,) = explainer.explain(IMAGES[:1], Query("smoothgrad", target=2, samples=samples, seed=4))
    copies = Noise(IMAGES[0], 0.15, 4).draw(0, samples)
    gradients = captum_gradient(small(), copies, 2)
    assert found.samples_used == samples
    assert distance(found.values, gradients.mean(0)) < 1e-5
    assert found.standard_error is not None
    assert distance(found.standard_error, gradients.std(0) / samples**0.5) < 1e-4
    assert set(counted.rows) <= set(SIZES)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.samples > 1])
def test_every_sampled_method_answers_as_without_fixed_sizes(
    one: tuple[Explainer, Counted], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    explainer, counted = one
    monkeypatch.setattr(explainers, "sizes_of", lambda device: ())
    plain = Explainer(small(), IMAGES[:1], chunk=16)
    if method not in plain.methods():
        pytest.skip("the network cannot answer it")
    query = Query(method, target=1, samples=11 if METHODS[method].drawn.random else None, seed=2)
    (expected,), (found,) = plain.explain(IMAGES[:1], query), explainer.explain(IMAGES[:1], query)
    assert distance(found.values, expected.values) < 1e-5
    assert found.samples_used == expected.samples_used
    assert set(counted.rows) <= set(SIZES)
    plain.close()


def test_draws_of_several_explanations_share_a_padded_pass_and_stay_apart(one: tuple[Explainer, Counted]) -> None:
    explainer, counted = one
    queries = [Query("smoothgrad", target=t, samples=n, seed=t) for t, n in ((1, 2), (2, 3), (4, 6))]
    smoothings = [explainer.begin(image, query) for image, query in zip(IMAGES, queries)]
    finish(explainer.advance([(each, each.left) for each in smoothings]))
    assert counted.rows == [16]
    for image, query, smoothing in zip(IMAGES, queries, smoothings):
        copies = Noise(image, 0.15, query.seed).draw(0, query.count)
        expected = captum_gradient(small(), copies, query.target or 0).mean(0)
        assert distance(smoothing.estimate().values, expected) < 1e-5


def test_the_chunk_is_an_allowed_size_and_stays_one_after_a_lack_of_memory(fixed: None) -> None:
    assert Explainer(small(), IMAGES[:1], chunk=50).chunk == 32
    room = Room(48, SIZES)
    assert room.size == 32
    room.short(50)
    assert room.size == 16
    for _ in range(16):
        room.fitted(16)
    assert room.size == 32


def test_each_size_is_warmed_at_load_up_to_the_chunk(one: tuple[Explainer, Counted]) -> None:
    explainer, counted = one
    assert warm(explainer, IMAGES[:1]) == [1, 2, 4, 8, 16] == counted.rows


def test_a_cpu_warms_nothing() -> None:
    assert warm(Explainer(small(), IMAGES[:1]), IMAGES[:1]) == []


def test_warming_ends_where_memory_does(one: tuple[Explainer, Counted], monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, _ = one
    passes = explainer.network.passes

    def short(images: torch.Tensor, *rest: Any) -> Any:
        if len(images) > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return passes(images, *rest)

    monkeypatch.setattr(explainer.network, "passes", short)
    assert warm(explainer, IMAGES[:1]) == [1, 2, 4]
    assert explainer.chunk == 4
