"""What one pass hands to the methods: each query its own row, in float32, whatever else is asked."""

from dataclasses import replace

import pytest
import torch

from heatserve.engine import METHODS, Explainer, Query, Smoothing, registry
from tests.engine.networks import distance, pictures, small

IMAGE = pictures(1, (24, 36), seed=8)
ONCE = pytest.mark.parametrize("optimize", [False], indirect=True, ids=["plain"])


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradient"])
def test_as_many_queries_as_rows_are_not_taken_for_one_of_each(method):
    one, images = Explainer(small(), IMAGE), pictures(3, (24, 36), seed=2)
    asked = [[Query(method, target=1), Query(method, target=2, contrast=0)], [], [Query(method, target=2)]]
    for queries in (asked, asked[::-1], [asked[0], [Query(method, target=4)], []]):
        _, answers = one.run(images, queries)
        for image, row, found in zip(images, queries, answers):
            assert [answer.query for answer in found] == row
            for query, answer in zip(row, found):
                assert distance(answer.values, one.run(image[None], [[query]])[1][0][0].values) < 1e-5


@ONCE
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_method_is_given_float32_whatever_the_precision_of_the_pass(monkeypatch, precision):
    given = []

    def spy(signal):
        given.extend([signal.activations.dtype, signal.gradients.dtype])
        return METHODS["cam"].attribute(replace(signal, class_weights=signal.gradients.mean((2, 3))))

    monkeypatch.setitem(registry._methods, "gradcam", replace(METHODS["gradcam"], attribute=spy))
    one = Explainer(small(), IMAGE, layers=("trunk", "trunk.1"), precision=precision)
    given.clear()
    for layer in one.layers:
        one.explain(IMAGE, Query("gradcam", target=1, layer=layer, samples=2))
    assert given == [torch.float32] * 4


@ONCE
def test_a_pass_in_fewer_bits_that_does_not_fit_is_halved_in_fewer_bits(monkeypatch):
    one, dtypes = Explainer(small(), IMAGE, chunk=4, precision="bfloat16"), []
    forward = one.model.forward

    def limited(x):
        if len(x) > 1:
            raise MemoryError
        scores = forward(x)
        dtypes.append(scores.dtype)
        return scores

    monkeypatch.setattr(one.model, "forward", limited)
    smoothing = Smoothing(IMAGE[0], Query("smoothgrad", target=1, samples=4))
    list(one.advance([(smoothing, 4)]))
    assert dtypes == [torch.bfloat16] * 4
