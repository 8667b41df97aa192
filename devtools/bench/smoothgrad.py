"""SmoothGrad beside Captum's, on any device. Both do the same work, Captum's with its best chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from devtools.bench import stopwatch
from devtools.bench.fidelity import Fidelity, fidelity
from devtools.bench.networks import NETWORKS, photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Action, Progress, Ratio, interleave, ratio
from devtools.bench.stopwatch import Stopwatch
from heatserve import Explainer, Query
from heatserve.engine import Attribution, is_out_of_memory
from heatserve.engine.sampling import Noise

TARGET = 0
SAMPLES = 50
#: The number in each part of the samples, by which a bias is measured.
PART = 50
CHUNKS = (1, 2, 5, 10, 25, 50)
#: A CPU has no faster convolutions in float16.
PRECISIONS = ("float32", "bfloat16")
#: The limits against Captum: of float32, of the fastest precision, and of the same total error.
EXACT, FASTEST, SAME_ERROR = 0.78, 0.5, 0.48


@dataclass(frozen=True)
class Smoother:
    """A contestant.

    of: makes an action with so many samples, which gives its attribution.
    chunk: the number of noisy copies in one pass.
    explainer: None for Captum's.
    """

    of: Callable[[int], Callable[[], object]]
    samples: int
    chunk: int
    precision: str = "float32"
    explainer: Explainer | None = None

    @property
    def action(self) -> Action:
        return self.of(self.samples)


def measure(name: str, seconds: float, rounds: int, progress: Progress, part: int = PART) -> list[Result]:
    """Ours against Captum's, for one photograph, in every precision and for the same total error.

    part: the number of samples in each of the parts that separate a precision's bias from its noise.
    """
    watch, samples = stopwatch.host(), SAMPLES
    model, inputs = NETWORKS[name].build(), photograph()
    smoothers = contestants(model, inputs, samples, PRECISIONS, watch)
    captum = next(label for label, smoother in smoothers.items() if smoother.explainer is None)
    found = interleave(
        {label: watch.timed(smoother.action) for label, smoother in smoothers.items()},
        seconds,
        warm_up=1,
        least=rounds,
        progress=progress,
    )
    results, cheapest = [], None
    faithful = fidelities(smoothers, inputs, part)
    # float32 has no bias, and neither has Captum: both have the same error of as many samples.
    error = next(iter(faithful.values())).error(samples)
    for label, true in faithful.items():
        smoother = smoothers[label]
        exact = smoother.precision == "float32"
        times = ratio(found[label], found[captum])
        detail: dict[str, Any] = {**asdict(true), "chunk": smoother.chunk, "captum_chunk": smoothers[captum].chunk}
        if exact:
            detail["distance_to_captum_at_the_same_noise"] = _distance_to_captum(model, inputs, smoother)
        limit = EXACT if exact else FASTEST
        results.append(Result.of(f"{label}: {name}, against Captum NoiseTunnel", times, limit, **detail))
        results += errors(name, smoother.precision, true, error)
        needed = true.samples_for(error)
        share = None if needed is None else needed / samples
        if share is not None and (cheapest is None or times.median * share < cheapest[0].median):
            cheapest = (
                Ratio(times.median * share, times.low * share, times.high * share, times.rounds),
                label,
                share,
            )
    assert cheapest is not None
    times, label, share = cheapest
    what = f"SmoothGrad to the total error of Captum's n = {samples}: {name}, against Captum NoiseTunnel"
    return [*results, Result.of(what, times, SAME_ERROR, by=label, samples=round(samples * share, 1))]


def faithfulness(name: str, progress: Progress, part: int = PART) -> list[Result]:
    """The biases and errors of one network's smoothed maps in each precision, without any timing."""
    model, inputs = NETWORKS[name].build(), photograph()
    smoothers = ours(model, inputs, SAMPLES, PRECISIONS)
    faithful = fidelities(smoothers, inputs, part)
    progress(1.0)
    error = next(iter(faithful.values())).error(SAMPLES)
    return [
        line for label, found in faithful.items() for line in errors(name, smoothers[label].precision, found, error)
    ]


def errors(name: str, precision: str, found: Fidelity, error: float) -> list[Result]:
    """A precision's bias and error, in shares of the true map. error: float32's at `SAMPLES`."""
    needed = found.samples_for(error)
    lines = [
        Result(f"SmoothGrad, bias of {precision}: {name}, of the true map's size", 100 * found.bias, "%"),
        Result(
            f"SmoothGrad, error of n = {SAMPLES} in {precision}: {name}, of the true map's size",
            100 * found.error(SAMPLES),
            "%",
        ),
    ]
    if needed is not None:
        what = f"SmoothGrad, samples in {precision} for float32's error at n = {SAMPLES}: {name}"
        lines.append(Result(what, needed, ""))
    return lines


def fidelities(smoothers: Mapping[str, Smoother], inputs: Tensor, part: int) -> dict[str, Fidelity]:
    """The fidelity of each of ours against the first, by name. inputs: (1, C, H, W)."""
    ours = {label: smoother.explainer for label, smoother in smoothers.items() if smoother.explainer is not None}
    exact = next(iter(ours.values()))
    return {label: fidelity(explainer, exact, inputs[0], TARGET, part) for label, explainer in ours.items()}


def _distance_to_captum(model: nn.Module, inputs: Tensor, smoother: Smoother) -> float:
    """The relative L2 distance to the mean of Captum's gradients at our noisy copies."""
    from captum.attr import Saliency

    found = _attribution(smoother)
    noise, total = Noise(inputs[0], found.query.noise_level, found.query.seed), torch.zeros_like(inputs[0]).double()
    for index in range(smoother.samples):
        copy = noise.draw(index, 1).requires_grad_()
        total += Saliency(model).attribute(copy, target=TARGET, abs=False)[0].double()
    theirs = total / smoother.samples
    return float((found.values - theirs).norm() / theirs.norm())


def contestants(
    model: nn.Module, inputs: Tensor, samples: int, precisions: Sequence[str], watch: Stopwatch
) -> dict[str, Smoother]:
    """Ours in each precision, and Captum's; by name. inputs: (1, C, H, W)."""
    found = ours(model, inputs, samples, precisions)
    model = model.requires_grad_(False)  # the peer's graph keeps nothing for the weights either
    chunk = best_chunk(lambda size: _captum(model, inputs, size)(samples), samples, watch)
    found[f"Captum NoiseTunnel n = {samples}"] = Smoother(_captum(model, inputs, chunk), samples, chunk)
    return found


def ours(model: nn.Module, inputs: Tensor, samples: int, precisions: Sequence[str]) -> dict[str, Smoother]:
    """Ours in each precision, by name. The others are compared with the first."""
    found = {}
    for precision in precisions:
        explainer = Explainer(deepcopy(model), inputs, optimize=True, precision=precision)
        found[f"SmoothGrad n = {samples}, {precision}"] = Smoother(
            _ours(explainer, inputs), samples, min(explainer.chunk, samples), precision, explainer
        )
    return found


def best_chunk(of: Callable[[int], Action], samples: int, watch: Stopwatch) -> int:
    """The fastest of `CHUNKS`, by the better of two tries. Those that do not fit into memory are left out."""
    seconds: dict[int, float] = {}
    for size in [size for size in CHUNKS if size <= samples]:
        measure = watch.timed(of(size))
        try:
            measure()  # kernels are chosen and loaded at the first
            seconds[size] = min(measure(), measure())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
    return min(seconds, key=lambda size: seconds[size])


def _attribution(smoother: Smoother) -> Attribution:
    found = smoother.action()
    assert isinstance(found, Attribution)
    return found


def _ours(explainer: Explainer, inputs: Tensor) -> Callable[[int], Callable[[], Attribution]]:
    def of(samples: int) -> Callable[[], Attribution]:
        query = Query("smoothgrad", target=TARGET, samples=samples)

        def run() -> Attribution:
            *_, smoothing = explainer.smooth(inputs[0], query)
            return smoothing.estimate()

        return run

    return of


def _captum(model: nn.Module, inputs: Tensor, chunk: int) -> Callable[[int], Action]:
    from captum.attr import NoiseTunnel, Saliency

    method = NoiseTunnel(Saliency(model))
    # As in ours, it is a share of the image's range.
    spread = 0.15 * float(inputs.amax() - inputs.amin())

    def of(samples: int) -> Action:
        return lambda: method.attribute(
            inputs,
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=chunk,
            stdevs=spread,
            target=TARGET,
            abs=False,
        )

    return of
