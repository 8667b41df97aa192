"""SmoothDiff where numbers are few: in 16 bits, with one sample, and after a pass that failed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from heatserve.engine import Explainer, Query, begun, derivative_bytes
from heatserve.engine.means import Means
from heatserve.engine.smoothdiff import SmoothDiff
from tests.engine.one_layer import IMAGE, SIGMA, Net, distance, gradient, mean_gradient, of


def explained(function: Callable[[Tensor], Tensor], precision: str, **query: object) -> tuple[Tensor, Tensor]:
    """The answer in a precision, and the mean gradient of the same noise in float64. Both have the noise of float32."""
    net, image = Net(function).eval().requires_grad_(False), IMAGE.float()
    exact = deepcopy(net).double()
    one = Explainer(net, image.clone(), precision=precision, chunk=16)
    asked = Query("smoothdiff", target=1, noise_level=SIGMA, **query)  # type: ignore[arg-type]
    draws = begun(image[0], asked)
    assert isinstance(draws, SmoothDiff)
    copies = draws.means.draw(0, asked.count).double().requires_grad_()
    found = one.explain(image, asked)[0].values
    (each,) = torch.autograd.grad(exact(copies)[:, 1].sum(), copies)
    return found, each.mean(0)


# A pooling or a ReLU that flips for one copy of twenty is the most of it.
@pytest.mark.parametrize("precision, far", [("bfloat16", 0.05), ("float16", 0.03)])
@pytest.mark.parametrize("name", ["relu", "silu", "max_pool2d"])
def test_fewer_bits_are_near_the_mean_gradient_in_float64(name: str, precision: str, far: float) -> None:
    functions = {"relu": functional.relu, "silu": functional.silu, "max_pool2d": lambda x: functional.max_pool2d(x, 2)}
    found, expected = explained(functions[name], precision, samples=20)
    assert found.dtype == torch.float32 and 1e-6 < distance(found, expected) < far


def test_sums_beyond_the_largest_float16_are_means_within_it() -> None:
    found, expected = explained(lambda x: (x + 90) * x.mean((2, 3), keepdim=True), "float16", samples=1000)
    assert found.isfinite().all() and distance(found, expected) < 0.01


def test_a_map_of_nothing_has_an_error_of_nothing_but_in_float16() -> None:
    """float16 has no number between 0 and 6e-8, so that 0 may have been a small gradient."""
    for precision, error in (("float32", 0.0), ("bfloat16", 0.0), ("float16", float("inf"))):
        net = Net(lambda x: functional.relu(x - 1000)).eval()
        query = Query("smoothdiff", target=1, standard_error=0.5)
        found = Explainer(net, IMAGE.float(), precision=precision).explain(IMAGE.float(), query)[0]
        assert not found.values.any() and float(found.relative_error) == error  # type: ignore[arg-type]
        assert found.reached == (error == 0)


def test_the_error_of_one_sample_is_not_known() -> None:
    net = of(functional.relu)
    query = Query("smoothdiff", target=1, samples=1, noise_level=SIGMA, standard_error=0.5)
    found = Explainer(net, IMAGE.clone()).explain(IMAGE, query)[0]
    assert distance(found.values, mean_gradient(net, 1)) < 2e-6 < distance(found.values, gradient(net))
    assert found.relative_error is not None and found.relative_error.isnan() and not found.reached
    assert found.standard_error is not None and found.standard_error.shape == found.values.shape
    assert found.standard_error.isnan().all()


@pytest.mark.parametrize("fails", [0, 1])
def test_targets_are_answered_after_a_pass_that_failed_once(fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """fails: which pass of the network: that of the samples, or that of the image by the means."""
    net = of(functional.relu)
    one = Explainer(net, IMAGE.clone(), chunk=32)
    jobs: list[SmoothDiff] = []
    for target in range(3):
        job = begun(IMAGE[0], Query("smoothdiff", target=target, noise_level=SIGMA), beside=jobs)
        assert isinstance(job, SmoothDiff)
        jobs.append(job)
    passes, number = type(one.network).passes, iter(range(100))

    def failing(*args: object, **kwargs: object) -> object:
        if next(number) == fails:
            raise RuntimeError("of one pass")
        return passes(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(one.network), "passes", failing)
    with pytest.raises(RuntimeError, match="of one pass"):
        for _ in one.advance([(job, job.left) for job in jobs]):
            pass
    for _ in range(20):
        for _ in one.advance([(job, 1) for job in jobs if job.left]):
            pass
    assert not any(job.left for job in jobs)
    for target, job in enumerate(jobs):
        assert distance(job.estimate().values, mean_gradient(net, 10, target=target)) < 2e-6


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("error", [None, 1e-9])
@pytest.mark.parametrize("function", [functional.relu, functional.silu])
def test_the_bytes_that_are_counted_are_those_of_the_tensors(
    function: Callable[[Tensor], Tensor], error: float | None, double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most that live at a time, as the interpreter knows them: the sums so far, and those of a further pass."""
    net = Net(function).to(torch.float64 if double else torch.float32).eval()
    image = IMAGE.to(next(net.parameters()).dtype)
    one = Explainer(net, image.clone(), chunk=10)
    query = Query("smoothdiff", target=1, samples=20, noise_level=SIGMA, standard_error=error)
    job = begun(image[0], query)
    shapes = {(plan.shapes or ((),))[0] for plan in one.network.choice.plan}  # type: ignore[union-attr]
    most, add = [0], Means.add

    def measured(self: Means, group: int, sums: object) -> None:
        # Sums have the shape of one row of a derivative; nothing else alive here has it.
        alive = [each for each in gc.get_objects() if type(each) is Tensor and each.shape in shapes]
        most[0] = max(most[0], sum({each.data_ptr(): each.nbytes for each in alive}.values()))
        add(self, group, sums)  # type: ignore[arg-type]

    monkeypatch.setattr(Means, "add", measured)
    for _ in range(2):
        for _ in one.advance([(job, 10)]):
            pass
    assert most[0] == derivative_bytes(one.network, query) > 0
    one.close()
