"""No chunk reads numbers back from the device, but where a rule of the samples decides.

On a CPU nothing waits. The tests therefore raise an error at each operation that would wait on CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import heatserve.engine.explainer as explainers
from heatserve.engine import METHODS, Explainer, Query, on_host
from heatserve.engine import transfer as transfers
from heatserve.engine.sizes import SIZES
from heatserve.engine.steps import finish
from tests.engine.networks import pictures, small

IMAGES = pictures(3, (24, 36), seed=8)
#: Operations whose result, or whose result's shape, the host has to know.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim", "item")


class Waited(AssertionError):
    """The host would have waited for the device."""


class Refusing(TorchDispatchMode):
    """Raises `Waited` for an operation that waits."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ in WAITING:
            raise Waited(str(function))
        return function(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    def refuse(name: str) -> Any:
        def waited(*_: Any, **__: Any) -> Any:
            raise Waited(name)

        return waited

    with pytest.MonkeyPatch.context() as patched, Refusing():
        for name in ("tolist", "cpu", "numpy", "item", "__bool__", "__float__", "__int__"):
            patched.setattr(Tensor, name, refuse(name))
        yield


@pytest.mark.parametrize(
    "wait", [lambda t: bool(t[0]), lambda t: t[0].item(), lambda t: t.tolist(), lambda t: t.cpu(), torch.nonzero]
)
def test_the_watch_sees_what_waits(wait: Any) -> None:
    with pytest.raises(Waited), no_waiting():
        wait(torch.ones(3))


#: Masks come from the host's generator; Captum and models asked again are the business of those who wrote them.
FREE = ("smoothgrad", "smoothgrad_squared", "vargrad", "integrated_gradients", "expected_gradients", "occlusion")


@pytest.mark.parametrize("fixed", [False, True], ids=["any size", "fixed sizes"])
@pytest.mark.parametrize("method", FREE)
def test_no_chunk_reads_a_number_back(monkeypatch: pytest.MonkeyPatch, method: str, fixed: bool) -> None:
    monkeypatch.setattr(explainers, "sizes_of", lambda device: SIZES if fixed else ())
    one = Explainer(small(), IMAGES[:1], chunk=16)
    queries = [Query(method, target=t, contrast=t - 1) for t in (1, 2, 3)]
    smoothings = [one.begin(image, query) for image, query in zip(IMAGES, queries)]
    with no_waiting():
        for count in (2, 3):
            finish(one.advance([(smoothing, count) for smoothing in smoothings]))
        one.settle()
    assert all(smoothing.samples + smoothing.query.references >= 5 for smoothing in smoothings)


def test_smoothed_layers_of_several_maps_read_nothing_back() -> None:
    one = Explainer(small(), IMAGES[:1], chunk=16)
    smoothings = [one.begin(image, Query("gradcam", target=2, samples=9)) for image in IMAGES]
    with no_waiting():
        finish(one.advance([(smoothing, 4) for smoothing in smoothings]))


def test_a_rule_of_the_samples_reads_back_at_its_fixed_counts_alone() -> None:
    one = Explainer(small(), IMAGES[:1], chunk=16)
    smoothing = one.begin(IMAGES[0], Query("smoothgrad", target=2, samples=50, standard_error=0.01))
    with no_waiting():
        finish(one.advance([(smoothing, 9)]))
    with pytest.raises(Waited), no_waiting():
        finish(one.advance([(smoothing, 1)]))


def test_passes_with_given_targets_read_nothing_back() -> None:
    one = Explainer(small(), IMAGES[:1], chunk=16)
    queries = [[Query(target=1), Query("cam", target=2)], [], [Query("gradient", target=3)]]
    with no_waiting():
        one.run(IMAGES, queries)


def test_an_estimate_reads_nothing_back_and_one_copy_brings_all_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Explainer(small(), IMAGES[:1], chunk=16)
    smoothing = one.begin(IMAGES[0], Query("smoothgrad", target=2, samples=4))
    finish(one.advance([(smoothing, 4)]))
    with no_waiting():
        estimate = smoothing.estimate()
    # Tensors of a device count as such here, and their copies are counted.
    copies = []
    together = transfers._together

    def counted(tensors: Any) -> Any:
        copies.append(len(tensors))
        return together(tensors)

    monkeypatch.setattr(transfers, "fetched", counted)
    scores = torch.arange(6.0)
    (found,), (beside,) = on_host([estimate], scores)
    assert copies == [3]
    assert torch.equal(found.values, estimate.values) and torch.equal(beside, scores)
    assert torch.equal(found.relative_error, estimate.relative_error) and found.query == estimate.query


def test_what_draws_are_prepared_from_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Explainer(small(), IMAGES[:1], chunk=16)
    query = Query("scorecam", target=1).at_image
    assert query is not None and METHODS["scorecam"].prepare is not None
    _, ((prepared,),) = one.run(IMAGES[:1], [[query]])
    monkeypatch.setattr(transfers, "fetched", lambda tensors: [one + 1 for one in tensors])
    (found,), _ = on_host([prepared])
    assert found is prepared
