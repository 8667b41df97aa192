"""Memory: smoothing needs no more of it with more samples, and where it is short the work is halved."""

import gc

import pytest
import torch
from torch import Tensor

from heatserve.engine import Explainer, OutOfMemory, Query
from tests.engine.networks import distance, pictures, small

IMAGES = pictures(5, (24, 36))
MIXED = [[], [Query("gradient")], [Query(), Query("cam", target=1)], [Query(rank=1)], [Query(layer="trunk.2")]]


def live_bytes():
    """Bytes of all storages that Python holds."""
    storages = {}
    for one in gc.get_objects():
        if issubclass(type(one), Tensor):
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("method", ["smoothgrad", "vargrad", "gradcam"])
def test_the_memory_of_smoothing_does_not_grow_with_the_samples(method):
    one = Explainer(small(), IMAGES, chunk=4)
    gc.collect()
    gc.freeze()  # what was there before is not scanned
    try:
        inside, between = [], []
        handle = one.model.register_forward_hook(lambda *_: inside.append(live_bytes()))
        for _ in one.smooth(IMAGES[0], Query(method, target=1, samples=80)):
            between.append(live_bytes())
        handle.remove()
    finally:
        gc.unfreeze()
    assert len(between) == 20
    # The first chunk has no sums yet, and a generator may still hold the chunk before.
    assert max(inside[2:]) <= inside[2]
    assert max(between[2:]) <= between[2]


def limited(monkeypatch, one, rows, error):
    """From now on the network fails for more than `rows` rows; gives the list of batch sizes that it was asked for."""
    forward, asked = one.model.forward, []

    def limit(x):
        asked.append(len(x))
        if len(x) > rows:
            raise error("CUDA out of memory (injected)")
        return forward(x)

    monkeypatch.setattr(one.model, "forward", limit)
    return asked


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, MemoryError])
def test_a_batch_that_does_not_fit_is_halved_and_its_answers_are_the_same(monkeypatch, error):
    one = Explainer(small(), IMAGES, layers=("trunk", "trunk.2"))
    logits, answers = one.run(IMAGES, MIXED)
    asked = limited(monkeypatch, one, 2, error)
    halved_logits, halved = one.run(IMAGES, MIXED)
    assert asked == [5, 2, 3, 1, 2]
    assert one.fallbacks == 2
    assert distance(halved_logits, logits) < 1e-5
    for row, other in zip(answers, halved):
        assert [answer.query for answer in row] == [answer.query for answer in other]
        for answer, again in zip(row, other):
            assert distance(again.values, answer.values) < 1e-5


def test_smoothing_goes_on_with_a_smaller_chunk(monkeypatch):
    one = Explainer(small(), IMAGES, chunk=8)
    query = Query("smoothgrad", target=1, samples=20, seed=3)
    (expected,) = one.explain(IMAGES[:1], query)
    asked = limited(monkeypatch, one, 2, torch.cuda.OutOfMemoryError)
    (given,) = one.explain(IMAGES[:1], query)
    assert distance(given.values, expected.values) < 1e-5
    assert distance(given.standard_error, expected.standard_error) < 1e-5
    assert one.chunk == 2
    # The first chunk of 8 was tried, then its halves; from then on none was tried that had failed before.
    assert [size for size in asked if size > 2] == [8, 4, 4]


@pytest.mark.parametrize("queries", [[[]], [[Query()]], [[Query("gradient")]]])
def test_a_single_row_that_does_not_fit_is_an_error_of_its_own_and_leaves_the_taps_off(monkeypatch, queries):
    one = Explainer(small(), IMAGES)
    expected = one.run(IMAGES, [[]] * 5)[0]
    with monkeypatch.context() as patch:
        limited(patch, one, 0, torch.cuda.OutOfMemoryError)
        with pytest.raises(OutOfMemory) as raised:
            one.run(IMAGES[:1], queries)
        # Its cause's frames would hold the pass that did not fit.
        assert raised.value.__cause__ is None and raised.value.__context__ is None
    assert not one.model(IMAGES).requires_grad
    assert torch.equal(one.run(IMAGES, [[]] * 5)[0], expected)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    one = Explainer(small(), IMAGES)
    asked = limited(monkeypatch, one, 0, KeyError)
    with pytest.raises(KeyError):
        one.run(IMAGES, [[]] * 5)
    assert asked == [5]
