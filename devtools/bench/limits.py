"""Reasons of the library's figures: the parts of a SmoothGrad's time, and how often rounding shows in a gradient."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from devtools.bench.networks import NETWORKS, photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Progress
from heatserve import Explainer, Query
from heatserve.engine import Smoothing
from heatserve.engine.sampling import Noise

PRECISIONS = ("float32", "bfloat16")
PASSES = 10
#: A difference in maxima of the gradient, larger than rounding makes without a kink.
JUMP = 1e-4
COPIES = 1_000
#: The gradient of a packed convolution of few channels, the first one, is such a convolution too, and counts here.
_PACKED = "mkldnn::_convolution_pointwise"
_FORWARD = ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::thnn_conv2d", _PACKED)
_BACKWARD = (
    "aten::convolution_backward",
    "aten::_slow_conv2d_backward",
    "mkldnn::_convolution_transpose_pointwise",
)


def measure(progress: Progress, copies: int | None = None) -> list[Result]:
    """The shares of a chunk's time in each precision, and the kinks that so many noisy copies meet, or `COPIES`."""
    found: list[Result] = []
    for number, name in enumerate(NETWORKS):
        seconds = {precision: _operations(name, precision) for precision in PRECISIONS}
        exact = seconds["float32"]
        for way in ("forwards", "backwards"):
            share = 100 * exact[way] / exact.total()
            found.append(
                Result(f"SmoothGrad, time of convolutions {way}: {name}, float32, of all operations", share, "%")
            )
            for precision in PRECISIONS[1:]:
                times = seconds[precision][way] / exact[way]
                found.append(
                    Result(f"SmoothGrad, time of convolutions {way}: {name}, {precision} against float32", times)
                )
        found += _kinks(name, copies or COPIES)
        progress((number + 1) / len(NETWORKS))
    return found


def _operations(name: str, precision: str) -> Counter[str]:
    """Seconds of a few chunks of noisy copies: convolutions forwards, backwards, and everything else."""
    image = photograph()
    explainer = Explainer(NETWORKS[name].build(), image, optimize=True, precision=precision)
    smoothing = Smoothing(image[0], Query("smoothgrad", target=0, samples=explainer.chunk * (PASSES + 2)))

    def chunk() -> None:
        for _ in explainer.advance([(smoothing, explainer.chunk)]):
            pass

    chunk()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(PASSES):
            chunk()
    spent: Counter[str] = Counter()
    for event in profile.key_averages():
        kind = "forwards" if event.key in _FORWARD else "backwards" if event.key in _BACKWARD else "other"
        spent[kind] += event.self_cpu_time_total / 1e6
    return spent


def _kinks(name: str, count: int) -> list[Result]:
    """The number of noisy copies whose gradient alone differs from that in a pass of four.

    Rounding moved a pre-activation of theirs across the kink of a rectifier.
    """
    image = photograph()
    explainer = Explainer(NETWORKS[name].build(), image)
    noise, query = Noise(image[0], 0.15, seed=0), [Query("gradient", target=0)]
    jumps = []
    for first in range(0, count, 4):
        copies = noise.draw(first, 4)
        together = _gradients(explainer, copies, query)
        alone = torch.cat([_gradients(explainer, copy[None], query) for copy in copies])
        jumps += ((together - alone).abs().amax((1, 2, 3)) / together.abs().amax((1, 2, 3))).tolist()
    jumped = sum(jump > JUMP for jump in jumps)
    return [
        Result(f"noisy copies of {count} whose gradient jumps, alone against among four: {name}", jumped, ""),
        Result(f"the largest such jump, of the gradient's maximum: {name}", 100 * max(jumps), "%"),
    ]


def _gradients(explainer: Explainer, images: Tensor, query: list[Query]) -> Tensor:
    _, answers = explainer.run(images, [query] * len(images))
    return torch.stack([answer.values for (answer,) in answers])
