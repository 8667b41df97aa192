"""The suites of `scripts/bench`. Each is made of steps, and a step that fails does not lose the others."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
    stopwatch,
)
from devtools.bench.networks import NETWORKS
from devtools.bench.results import Result
from devtools.bench.rounds import Progress

Step = Callable[[Progress], "list[Result]"]
#: By the name that the terminal shows.
Steps = dict[str, Step]

# The docstrings are the help of the commands.


def library_suite(quick: bool) -> Steps:
    """Explanations in this process; 15 minutes.

    Times against a forward pass and against other libraries, and memory."""
    seconds, passes, smoothings, part = (8, 8, 3, 6) if quick else (50, 20, 10, smoothgrad.PART)
    steps: Steps = {}
    for name in NETWORKS:
        for batch in library.BATCHES:
            steps[f"{name}, batch {batch}"] = lambda progress, name=name, batch=batch: library.measure(
                name, batch, seconds, passes, progress
            )
        steps[f"{name}, SmoothGrad"] = lambda progress, name=name: smoothgrad.measure(
            name, seconds, smoothings, progress, part
        )
        steps[f"{name}, noisy copies in a pass"] = lambda progress, name=name: library.chunks(
            name, seconds / 2, smoothings, progress
        )
    return {**steps, **_memory_of_smoothgrad(quick), "memory of Grad-CAM": memory.gradcam_row}


def errors_suite(quick: bool) -> Steps:
    """Errors of precisions, and memory of SmoothGrad; ten minutes.

    The biases and errors of precisions in SmoothGrad's map. Nothing is timed."""
    part = 6 if quick else smoothgrad.PART
    steps: Steps = {
        f"{name}, biases of precisions": lambda progress, name=name: smoothgrad.faithfulness(name, progress, part)
        for name in NETWORKS
    }
    return {**steps, **_memory_of_smoothgrad(quick)}


def _memory_of_smoothgrad(quick: bool) -> Steps:
    samples, processes = ((4, 50), 1) if quick else ((4, 50, 200, 400), 5)
    threads = torch.get_num_threads()
    return {"memory of SmoothGrad": lambda progress: memory.smoothgrad(samples, threads, processes, progress)}


def server_suite(quick: bool) -> Steps:
    """This handler and the stock one; 15 minutes.

    Locust's load on two TorchServes side by side: latency, rate, size, processor time, time to ready."""
    seconds, rounds = (8, 3) if quick else (50, 10)
    return {
        f"servers, {name}": lambda progress, name=name: servers.measure(seconds, progress, rounds, [name])
        for name in NETWORKS
    }


def scaling_suite(quick: bool) -> Steps:
    """The growth of costs, with plots.

    Over the batch's size, the samples, the targets, the photograph's megapixels and the clients."""
    seconds, rounds = (8, 2) if quick else (50, 8)
    return {
        f"over the {axis}": lambda progress, step=step: step(seconds, rounds, progress)
        for axis, step in scaling.STEPS.items()
    }


def limits_suite(quick: bool) -> Steps:
    """The parts of a SmoothGrad's time.

    And how often rounding shows in its gradients."""
    copies = 40 if quick else limits.COPIES
    return {"where the time goes": lambda progress: limits.measure(progress, copies)}


def gpu_suite(quick: bool) -> Steps:
    """The library on a CUDA device; under 8 minutes, no network."""
    stopwatch.cuda()
    seconds, rounds = (8, 8) if quick else (25, 20)
    return {"CUDA": lambda progress: gpu.measure(seconds, rounds, progress)}


def live_suite(quick: bool) -> Steps:
    """Predictions beside explanations; half an hour.

    TorchServe's ordinary mode and continuous batching."""
    effort = live.QUICK if quick else live.DEFAULT
    return {"predictions beside explanations": lambda progress: live.measure(effort, progress)}


def photographs_suite(quick: bool) -> Steps:
    """Predictions beside large pictures; five minutes."""
    seconds, rounds = (6.0, 1) if quick else (30.0, 3)
    return {"predictions beside large pictures": lambda progress: photographs.measure(seconds, rounds, progress)}


def endurance_suite(minutes: float) -> Steps:
    """Mixed requests for a long time.

    To continuous batching: wrong answers, memory, open files, deaths."""
    return {f"{minutes:g} minutes of mixed requests": lambda progress: endurance.measure(minutes, progress)}


def deaths_suite(count: int) -> Steps:
    """Deaths of the worker under load.

    The time until it serves again, and the clients without an answer."""
    return {f"{count} deaths of the worker": lambda progress: deaths.measure(count, progress)}


def soak_suite(count: int) -> Steps:
    """The memory of one process over many explanations."""
    threads = torch.get_num_threads()
    return {f"{count} explanations": lambda progress: soak.measure(count, threads, progress)}
