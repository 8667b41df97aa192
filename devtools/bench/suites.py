"""What can be measured: suites of steps, each with its effort. `scripts/bench` runs those that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devtools.bench import (
    deaths,
    endurance,
    gpu,
    library,
    limits,
    live,
    memory,
    photographs,
    scaling,
    servers,
    smoothgrad,
    soak,
)
from devtools.bench.networks import NETWORKS
from devtools.bench.results import Result
from devtools.bench.rounds import Seen

Step = Callable[[Seen], "list[Result]"]
Steps = dict[str, Step]


@dataclass(frozen=True)
class Effort:
    """seconds: for each group of contestants. rounds, smooth, load, curve: the fewest, of passes, of whole SmoothGrads,
    of bursts on servers, of series. part: of the samples that show a bias. samples: of the memory measurement, in so
    many processes each."""

    quick: bool
    threads: int
    seconds: float = 50
    rounds: int = 20
    smooth: int = 10
    load: int = 10
    curve: int = 8
    samples: tuple[int, ...] = (4, 50, 200, 400)
    part: int = smoothgrad.PART
    processes: int = 5


def effort(quick: bool, threads: int) -> Effort:
    """The usual one, or as little as shows that everything works."""
    return Effort(quick, threads, 8, 8, 3, 3, 2, (4, 50), 6, 1) if quick else Effort(quick, threads)


def of_the_library(of: Effort) -> Steps:
    """Passes and smoothing beside the peers', in one process; memory."""
    steps: Steps = {}
    for name in NETWORKS:
        for batch in library.BATCHES:
            steps[f"{name}, batch {batch}"] = lambda seen, name=name, batch=batch: library.measure(
                name, batch, of.seconds, of.rounds, seen
            )
        steps[f"{name}, SmoothGrad"] = lambda seen, name=name: smoothgrad.measure(
            name, of.seconds, of.smooth, seen, of.part
        )
        steps[f"{name}, noisy copies in a pass"] = lambda seen, name=name: library.chunks(
            name, of.seconds / 2, of.smooth, seen
        )
    steps["memory of SmoothGrad"] = lambda seen: memory.smoothgrad(of.samples, of.threads, of.processes, seen)
    steps["memory of Grad-CAM"] = memory.gradcam_row
    return steps


def of_errors(of: Effort) -> Steps:
    """What precisions do to SmoothGrad's map, and its memory: nothing is timed."""
    steps: Steps = {
        f"{name}, biases of precisions": lambda seen, name=name: smoothgrad.faithfulness(name, seen, of.part)
        for name in NETWORKS
    }
    return {**steps, "memory of SmoothGrad": lambda seen: memory.smoothgrad(of.samples, of.threads, of.processes, seen)}


def of_servers(of: Effort) -> Steps:
    """Locust's load on two real TorchServes: this handler and the stock one, with the same weights."""
    return {
        f"servers, {name}": lambda seen, name=name: servers.measure(of.seconds, seen, of.load, [name])
        for name in NETWORKS
    }


def of_scaling(of: Effort) -> Steps:
    """How costs grow."""
    return {
        f"over the {what}": lambda seen, step=step: step(of.seconds, of.curve, seen)
        for what, step in scaling.STEPS.items()
    }


def of_limits() -> Steps:
    """What explains the library's figures."""
    return {"where the time goes": limits.measure}


def of_cuda(of: Effort) -> Steps:
    """The library's suite on a CUDA device."""
    return {"CUDA": lambda seen: gpu.measure(min(of.seconds, 25), min(of.rounds, 20), seen)}


def of_continuous_batching(of: Effort) -> Steps:
    """Predictions beside explanations, in both modes."""
    return {
        "predictions beside explanations": lambda seen: live.measure(live.QUICK if of.quick else live.DEFAULT, seen)
    }


def of_photographs(of: Effort) -> Steps:
    """Predictions beside clients whose pictures take long to decode."""
    seconds, rounds = (6.0, 1) if of.quick else (30.0, 3)
    return {"predictions beside large pictures": lambda seen: photographs.measure(seconds, rounds, seen)}


def of_endurance(minutes: float) -> Steps:
    return {f"{minutes:g} minutes of mixed requests": lambda seen: endurance.measure(minutes, seen)}


def of_deaths(count: int) -> Steps:
    return {f"{count} deaths of the worker": lambda seen: deaths.measure(count, seen)}


def of_soaking(count: int, threads: int) -> Steps:
    return {f"{count} explanations": lambda seen: soak.measure(count, threads, seen)}
