"""Captured passes on a CPU, with a device that captures as CUDA does: one function of fixed buffers for each size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import heatserve.engine.explainer as explainers
from heatserve.engine import Explainer, Query, warm
from heatserve.engine.captured import plain
from heatserve.engine.launch import Eager, Work, launches_of
from heatserve.engine.sampling import Noise
from heatserve.engine.sizes import SIZES
from heatserve.engine.steps import finish
from tests.engine.networks import captum_gradient, distance, pictures, small

pytestmark = pytest.mark.fast_path

IMAGES = pictures(3, (24, 36), seed=8)


class Buffered(Eager):
    """Launches whose captured functions read buffers, as a CUDA graph does, and leave their outputs in buffers.

    replays: the number of rows of each call.
    fill: copies what is given into a buffer.
    keep: what is made of an output before it is given back.
    """

    captures = True
    fill: Callable[[Tensor, Tensor], Any] = staticmethod(lambda own, one: own.copy_(one))
    keep: Callable[[Tensor], Tensor] = staticmethod(lambda one: one.clone())

    def __init__(self) -> None:
        self.replays: list[int] = []
        self.error: Exception | None = None

    def capture(self, work: Work, *example: Tensor) -> Work:
        inputs = [one.clone() for one in example]
        outputs = work(*inputs)

        def replay(*given: Tensor) -> tuple[Tensor, ...]:
            if self.error is not None:
                raise self.error
            self.replays.append(len(given[0]))
            for own, one in zip(inputs, given):
                self.fill(own, one)
            for own, one in zip(outputs, work(*inputs)):
                own.copy_(one)
            return tuple(self.keep(one) for one in outputs)

        return replay


@contextmanager
def opened(launches: Eager, **options: Any) -> Iterator[Explainer]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explainers, "sizes_of", lambda device: SIZES)
        patched.setattr(explainers, "launches_of", lambda device: launches)
        one = Explainer(small(), IMAGES[:1], **{"chunk": 8, **options})
        yield one
        one.close()


def smoothgrad(one: Explainer, samples: int = 11, target: int = 2) -> Tensor:
    (found,) = one.explain(IMAGES[:1], Query("smoothgrad", target=target, samples=samples, seed=4))
    assert found.samples_used == samples
    return found.values


def expected(samples: int = 11, target: int = 2) -> Tensor:
    return captum_gradient(small(), Noise(IMAGES[0], 0.15, 4).draw(0, samples), target).mean(0)


def test_each_fixed_size_is_captured_and_proved_at_load_and_gives_captums_mean() -> None:
    launches = Buffered()
    with opened(launches) as one:
        assert warm(one, IMAGES[:1]) == [1, 2, 4, 8] == list(one.captured.sizes)
        assert one.captured.reason == ""
        launches.replays.clear()
        for target in (2, 5, 0):
            assert distance(smoothgrad(one, 11, target), expected(11, target)) < 1e-5
        assert launches.replays == [8, 4] * 3


def test_explanations_that_share_a_captured_pass_keep_their_own_classes_and_noise() -> None:
    with opened(Buffered()) as one:
        warm(one, IMAGES[:1])
        queries = [Query("smoothgrad", target=t, samples=n, seed=t) for t, n in ((1, 2), (4, 3), (3, 2))]
        smoothings = [one.begin(image, query) for image, query in zip(IMAGES, queries)]
        finish(one.advance([(each, each.left) for each in smoothings]))
        for image, query, smoothing in zip(IMAGES, queries, smoothings):
            copies = Noise(image, 0.15, query.seed).draw(0, query.count)
            mean = captum_gradient(small(), copies, query.target or 0).mean(0)
            assert distance(smoothing.estimate().values, mean) < 1e-5


@pytest.mark.parametrize("method", ["smoothgrad_squared", "vargrad", "integrated_gradients", "expected_gradients"])
def test_other_means_of_the_gradient_are_as_without_captures(method: str) -> None:
    launches, query = Buffered(), Query(method, target=1, samples=9)
    with opened(Eager()) as one:
        (without,) = one.explain(IMAGES[:1], query)
    with opened(launches) as one:
        warm(one, IMAGES[:1])
        launches.replays.clear()
        (found,) = one.explain(IMAGES[:1], query)
    assert launches.replays and distance(found.values, without.values) < 1e-5
    for name, fact in without.facts.items():
        assert found.facts[name] == pytest.approx(fact, rel=1e-3, abs=1e-4)


FAULTS: dict[str, Any] = {
    "a stale buffer": lambda launches: setattr(launches, "fill", lambda own, one: None),
    "stale classes": lambda launches: setattr(
        launches, "fill", lambda own, one: own.copy_(one) if one.is_floating_point() else None
    ),
    "rows in another order": lambda launches: setattr(launches, "fill", lambda own, one: own.copy_(one.flip(0))),
    "a small error": lambda launches: setattr(launches, "keep", lambda one: one * 1.0001),
    "nothing at all": lambda launches: setattr(launches, "keep", torch.zeros_like),
    "no number": lambda launches: setattr(launches, "keep", lambda one: one * torch.nan),
    "outputs that the next pass changes": lambda launches: setattr(launches, "keep", lambda one: one),
    "an error": lambda launches: setattr(launches, "error", RuntimeError("capture failed")),
    "another error": lambda launches: setattr(launches, "error", KeyError("a library's own")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_capture_that_is_not_the_eager_pass_is_not_used(fault: str) -> None:
    launches = Buffered()
    FAULTS[fault](launches)
    with opened(launches) as one:
        warm(one, IMAGES[:1])
        # One row has no order.
        assert set(one.captured.sizes) <= ({1} if fault == "rows in another order" else set())
        assert one.captured.reason
        launches.replays.clear()
        assert distance(smoothgrad(one), expected()) < 1e-5
        assert not launches.replays


def test_a_replay_that_fails_is_done_eagerly_and_no_capture_is_used_again() -> None:
    launches = Buffered()
    with opened(launches) as one:
        warm(one, IMAGES[:1])
        launches.error = RuntimeError("CUDA graph replay failed")
        assert distance(smoothgrad(one), expected()) < 1e-5
        assert one.captured.sizes == () and one.captured.reason == "RuntimeError"


def test_predictions_maps_and_other_shapes_are_eager() -> None:
    launches = Buffered()
    with opened(launches) as one:
        warm(one, IMAGES[:1])
        launches.replays.clear()
        one.run(IMAGES[:2], [[Query("gradient", target=1)]] * 2)  # the precision of predictions
        one.explain(IMAGES[:1], Query("gradcam", target=1, samples=5))
        one.explain(IMAGES[:1, :, :16], Query("smoothgrad", target=1, samples=4))
        one.explain(IMAGES[:1], Query("smoothgrad", target=1, contrast=2, samples=4))
        assert not launches.replays
        finish(one.steps(IMAGES[:2], [[Query("gradient", target=1)]] * 2, "bfloat16"))
        assert not launches.replays
        finish(one.steps(IMAGES[:2], [[Query("gradient", target=1)]] * 2, "float32"))
        assert launches.replays == [2]


def test_warming_without_captures_leaves_all_passes_eager() -> None:
    launches = Buffered()
    with opened(launches) as one:
        assert warm(one, IMAGES[:1], capture=False) == [1, 2, 4, 8]
        assert one.captured.sizes == () and one.captured.reason == ""


def test_captures_end_with_the_explainer() -> None:
    with opened(Buffered()) as one:
        warm(one, IMAGES[:1])
        one.close()
        assert one.captured.sizes == ()


def test_fewer_bits_are_captured_in_their_precision() -> None:
    launches = Buffered()
    with opened(launches, precision="bfloat16") as one, opened(Eager(), precision="bfloat16") as other:
        warm(one, IMAGES[:1])
        assert one.captured.sizes == (1, 2, 4, 8)
        assert distance(smoothgrad(one), smoothgrad(other)) < 1e-5


@pytest.mark.parametrize(
    ("row", "answered"),
    [
        ([], True),
        ([Query("gradient", target=1)], True),
        ([Query("smoothgrad", target=1)], True),
        ([Query("gradient")], False),
        ([Query("gradient", target=1), Query("gradient", target=2)], False),
        ([Query("gradient", target=1, contrast=2)], False),
        ([Query("gradient", target=1, nearest=2, others=(3, 4))], False),
        ([Query("gradient", target=1, least=0.1)], False),
        ([Query("input_x_gradient", target=1)], False),
        ([Query("guided_backpropagation", target=1)], False),
        ([Query("guided_gradcam", target=1)], False),
        ([Query("gradcam", target=1)], False),
        ([Query("occlusion", target=1)], False),
    ],
)
def test_the_plain_case_is_one_gradient_of_one_fixed_class(row: list[Query], answered: bool) -> None:
    assert plain(row) == answered


def test_a_cpu_captures_nothing_and_runs_work_at_once() -> None:
    launches = launches_of(torch.device("cpu"))
    assert not launches.captures
    with launches.urgent():
        launches.settle()
    assert launches.capture(lambda one: (one + 1,), torch.zeros(2))(torch.ones(2))[0].tolist() == [2, 2]
    one = Explainer(small(), IMAGES[:1])
    assert not one.captured.capture(IMAGES[:1], 1, "float32") and one.captured.sizes == ()
