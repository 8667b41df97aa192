"""The library's benchmark on a CUDA device: the one report with milliseconds, and with the card's own limit.

The limit is the rate that a large matrix product reaches in the same run. The work is counted by
`torch.utils.flop_counter` from the shapes. A kernel that needs fewer operations (Winograd) looks nearer to the limit
than it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from devtools.bench import gpu_targets, library, stopwatch
from devtools.bench.library import FORWARD, SALIENCY, forward
from devtools.bench.networks import NETWORKS, Network, images
from devtools.bench.results import Result
from devtools.bench.rounds import Action, Progress, interleave, ratio
from devtools.bench.smoothgrad import Smoother, contestants, fidelities
from devtools.bench.stopwatch import Stopwatch
from heatserve import Explainer
from heatserve.engine import PRECISIONS
from heatserve.engine.precision import tensor_float

BATCHES = (1, 8, 32)
#: The most seconds of all rounds together: the suite is to be over within eight minutes.
LONGEST = 300.0
SIDE = 8192


@dataclass(frozen=True)
class Bench:
    """The device with its clock, the networks and the inputs that are measured.

    samples: of a SmoothGrad.
    side: of the matrices whose product is the limit.
    """

    watch: Stopwatch
    networks: Mapping[str, Network]
    inputs: Callable[[int], Tensor]
    batches: Sequence[int] = BATCHES
    samples: int = 50
    precisions: Sequence[str] = tuple(PRECISIONS)
    side: int = SIDE

    def model(self, name: str) -> nn.Module:
        """A network on the device."""
        return self.networks[name].build().to(self.watch.device)


def measure(seconds: float, rounds: int, progress: Progress, bench: Bench | None = None) -> list[Result]:
    """All contestants on the CUDA device, for so many seconds and at least so many rounds of each group.

    Raises Refusal where there is no such device.
    """
    bench = bench or Bench(stopwatch.cuda(), NETWORKS, images)
    steps = [(name, batch) for name in bench.networks for batch in (*bench.batches, None)]
    seconds = min(seconds, LONGEST / len(steps))
    found = [
        result
        for batch in gpu_targets.BATCHES
        if gpu_targets.NETWORK in bench.networks
        for result in gpu_targets.measure(
            bench.watch,
            bench.model(gpu_targets.NETWORK),
            bench.inputs(batch).to(bench.watch.device),
            seconds,
            rounds,
            bench.samples,
        )
    ]
    # Predictions and peers are in float32, our noisy copies in the precision of their label.
    with tensor_float(False):
        limits = {precision: limit(bench.watch, precision, bench.side) for precision in bench.precisions}
        found += [_limit(bench, precision, reached) for precision, reached in limits.items()]
        for number, (name, batch) in enumerate(steps):

            def share(done: float, number: int = number) -> None:
                progress((number + done) / len(steps))

            if batch is None:
                found += _smoothgrad(bench, name, limits, seconds, rounds, share)
            else:
                found += _passes(bench, name, batch, limits, seconds, rounds, share)
    return found


def limit(watch: Stopwatch, precision: str, side: int) -> float:
    """The operations a second of a product of two matrices, the best of ten."""
    one, other = (torch.randn((side, side), device=watch.device).to(PRECISIONS[precision]) for _ in range(2))
    product = watch.timed(lambda: one @ other)
    with tensor_float(precision == "tf32"):
        return float(2 * side**3 / min(product() for _ in range(10)))


def operations(action: Action) -> int:
    """The floating-point operations of an action's matrix products and convolutions; additions count like products."""
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def _passes(
    bench: Bench, name: str, batch: int, limits: Mapping[str, float], seconds: float, rounds: int, progress: Progress
) -> list[Result]:
    """Explanations that take one pass or two, against a plain forward pass."""
    model, inputs = bench.model(name), bench.inputs(batch).to(bench.watch.device)
    ours = {
        FORWARD: forward(deepcopy(model), inputs),
        # On CUDA it is what `True` does. The counter of operations does not know a CPU's packed convolutions.
        **library.ours(Explainer(deepcopy(model), inputs, optimize="folded"), inputs),
    }
    actions = {**ours, **library.peers(model, bench.networks[name].layer, inputs)}
    found = interleave(
        {label: bench.watch.timed(action) for label, action in actions.items()},
        seconds,
        least=rounds,
        progress=progress,
    )
    where, results = f"{name}, batch {batch}", []
    for label, action in actions.items():
        reachable = limits["float32"] if label in ours else None
        results += _absolute(bench, f"{label}: {where}", action, found[label], reachable)
    results += [
        Result.of(f"{label}: {where}, against a plain forward pass", ratio(found[label], found[FORWARD]))
        for label in actions
        if label != FORWARD
    ]
    gain = ratio(found["gradient"], found[SALIENCY])
    return [*results, Result.of(f"gradient: {where}, against {SALIENCY}", gain)]


def _smoothgrad(
    bench: Bench, name: str, limits: Mapping[str, float], seconds: float, rounds: int, progress: Progress
) -> list[Result]:
    """SmoothGrad of one image in every precision, against Captum's at its best chunk."""
    model, inputs = bench.model(name), bench.inputs(1).to(bench.watch.device)
    smoothers = contestants(model, inputs, bench.samples, bench.precisions, bench.watch)
    found = interleave(
        {label: bench.watch.timed(smoother.action) for label, smoother in smoothers.items()},
        seconds,
        least=rounds,
        progress=progress,
    )
    results = []
    for label, smoother in smoothers.items():
        reachable = limits[smoother.precision] if smoother.explainer is not None else None
        results += _absolute(bench, f"{label}: {name}", smoother.action, found[label], reachable)
    captum = next(label for label, smoother in smoothers.items() if smoother.explainer is None)
    for label, true in fidelities(smoothers, inputs, bench.samples).items():
        against = ratio(found[label], found[captum])
        chunks = {"chunk": smoothers[label].chunk, "captum_chunk": smoothers[captum].chunk}
        results.append(Result.of(f"{label}: {name}, against {captum}", against, **chunks, **asdict(true)))
    return [*results, _growth(bench, name, smoothers)]


def _growth(bench: Bench, name: str, smoothers: Mapping[str, Smoother]) -> Result:
    """Peak memory of many samples against few, with chunks of one size.

    The few make two chunks, so that the sums of the first live beside the pass of the second.
    """
    ours = next(one for one in smoothers.values() if one.explainer is not None)
    assert ours.explainer is not None
    ours.explainer.chunk = min(ours.explainer.chunk, bench.samples)
    counts = 2 * bench.samples, 8 * bench.samples
    few, many = (bench.watch.peak(ours.of(count)) for count in counts)
    what = f"SmoothGrad, peak memory on the device: {counts[1]} samples against {counts[0]} ({name})"
    return Result(what, many / few, detail={"peak_mb": round(many / 1e6, 2), "first_peak_mb": round(few / 1e6, 2)})


def _absolute(bench: Bench, what: str, action: Action, times: Sequence[float], reachable: float | None) -> list[Result]:
    """Milliseconds and memory, and the share of the limit where one is given.

    The peers get none: the counter follows modules, which fails where a leaf of the graph goes into one.
    """
    taken = ratio([*times], [0.001] * len(times))
    detail = {"peak_mb": round(bench.watch.peak(action) / 1e6, 3)}
    lines = [Result(what, taken.median, "ms", taken.low, taken.high, rounds=taken.rounds, detail=detail)]
    if reachable is not None:
        work = operations(action)
        reached = work / statistics.median(times)
        detail = {"gflop": round(work / 1e9, 6), "tflop_per_second": round(reached / 1e12, 6)}
        lines.append(Result(f"{what}, share of the device's limit", 100 * reached / reachable, "%", detail=detail))
    return lines


def _limit(bench: Bench, precision: str, reached: float) -> Result:
    what = f"the device's limit: a product of two {precision} matrices of {bench.side} x {bench.side}"
    return Result(what, reached / 1e12, "TFLOP/s", detail=stopwatch.about(bench.watch.device))
