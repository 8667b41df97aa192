"""What is said of errors, against a long reference on EfficientNet-Lite0 with its ImageNet weights."""

from functools import cache

import numpy as np
import pytest
import torch

from devtools.bench.networks import NETWORKS, photograph
from heatserve.engine import Explainer, Query, Smoothing
from heatserve.engine.statistic import Statistic

#: These weights need no second run: networks as they are.
pytestmark = pytest.mark.parametrize("optimize", [True], indirect=True, ids=["optimized"])
IMAGE = torch.nn.functional.interpolate(photograph(), (64, 64), mode="area")
SAMPLES, GROUP = 480, 30


@cache
def lite0(chunk=8):
    return Explainer(NETWORKS["lite0"].build(), IMAGE, chunk=chunk, optimize=True)


@cache
def gradients():
    """At 480 noisy copies, (480, 3, 64, 64)."""
    noise = Smoothing(IMAGE[0], Query("smoothgrad", target=285, samples=SAMPLES))._draws
    found = []
    for first in range(0, SAMPLES, 8):
        _, answers = lite0().run(noise.draw(first, 8), [[Query("gradient", target=285)]] * 8)
        found += [answer.values for (answer,) in answers]
    return torch.stack(found)


def of(samples, kind):
    statistic = Statistic(kind)
    statistic.update(samples)
    return statistic


@pytest.mark.parametrize("kind", ["mean", "mean_square", "variance"])
def test_the_stated_relative_error_covers_the_distance_to_a_long_reference(kind):
    """16 maps of 30 samples, each against the 450 others: the mean square of their distances is as stated."""
    everything, stated, distances, within = gradients(), [], [], []
    for first in range(0, SAMPLES, GROUP):
        some = of(everything[first : first + GROUP], kind)
        others = of(torch.cat([everything[:first], everything[first + GROUP :]]), kind)
        # The reference's own error is known, and taken off.
        off = (some.value() - others.value()).norm() ** 2 - others.standard_error().norm() ** 2
        true = float(others.value().norm() ** 2 - others.standard_error().norm() ** 2)
        stated.append(float(some.relative_error()))
        distances.append(float(off) / true)
        z = (some.value() - others.value()) / (some.standard_error() ** 2 + others.standard_error() ** 2).sqrt()
        within.append(float((z.abs() < 2.045).float().mean()))  # Student's t of 29 degrees, 95 %
    assert np.mean(stated) == pytest.approx(np.mean(distances) ** 0.5, rel=0.05 if kind == "mean" else 0.15)
    if kind == "mean":
        assert np.mean(stated) > 1
        assert 0.93 < np.mean(within) < 0.97


def test_the_chunk_hardly_ever_changes_where_a_request_ends():
    """Rounding by batch shape moves pre-activations across kinks: one of four may end a decision earlier or later."""
    ends = {}
    for chunk in (1, 7, 32):
        one = lite0()
        one.chunk = chunk
        queries = [Query("smoothgrad", target=285, samples=60, seed=seed, standard_error=1.0) for seed in range(4)]
        ends[chunk] = [one.explain(IMAGE, query)[0].samples_used for query in queries]
    for others in (ends[7], ends[32]):
        assert sum(one == other for one, other in zip(ends[1], others)) >= 3
    assert all(10 <= end <= 60 for end in ends[1])


def rounded(x):
    """float32 with TF32's ten bits of mantissa, to the nearest."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def emulating_tensor_float(net):
    """Products take rounded factors, as CUDA makes them under TF32."""

    def before(_module, inputs):
        return tuple(rounded(each) for each in inputs)

    for module in net.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            module.weight.data = rounded(module.weight.data)
            module.register_forward_pre_hook(before)
    return net


@pytest.mark.fast_path
def test_under_tensor_float_folding_moves_a_probability_by_no_more_than_the_documents_say():
    images = torch.cat([photograph(), photograph().flip(3), 0.5 * photograph()])
    plain, folded = NETWORKS["lite0"].build(), Explainer(NETWORKS["lite0"].build(), photograph(), optimize=True)
    assert folded.optimized.folded > 0
    with torch.no_grad():
        exact = plain(images).softmax(1) - folded.model(images).softmax(1)
        emulated = [emulating_tensor_float(net)(images).softmax(1) for net in (plain, folded.model)]
    assert exact.abs().max() < 1e-5
    assert 1e-5 < (emulated[0] - emulated[1]).abs().max() < 5e-3
