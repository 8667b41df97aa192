"""The suites of `scripts/bench`. Each is made of steps, and a step that fails does not lose the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from devtools.bench import (
    answers,
    cams,
    contention,
    deaths,
    endurance,
    gpu,
    library,
    limits,
    live,
    memory,
    operations,
    packed_memory,
    photographs,
    rates,
    resolution,
    scaling,
    servers,
    smoothdiff,
    smoothgrad,
    soak,
    stopwatch,
    targets,
)
from devtools.bench.networks import NETWORKS
from devtools.bench.results import Result
from devtools.bench.rounds import Progress

Step = Callable[[Progress], "list[Result]"]
#: By the name that the terminal shows.
Steps = dict[str, Step]

# The docstrings are the help of the commands.


def library_suite(quick: bool) -> Steps:
    """Explanations in this process; half an hour.

    Times against a forward pass and against other libraries, and memory.
    """
    seconds, passes, smoothings, part = (8, 8, 3, 6) if quick else (50, 20, 10, smoothgrad.PART)
    steps: Steps = {}
    for name in NETWORKS:
        for batch in library.BATCHES:
            steps[f"{name}, batch {batch}"] = partial(library.measure, name, batch, seconds, passes)
        steps[f"{name}, SmoothGrad"] = partial(smoothgrad.measure, name, seconds, smoothings, part=part)
        steps[f"{name}, SmoothGrad of several targets"] = partial(targets.measure, name, seconds, smoothings)
        steps[f"{name}, noisy copies in a pass"] = partial(library.chunks, name, seconds / 2, smoothings)
    steps |= {**_memory_of_smoothgrad(quick), "memory of Grad-CAM": memory.gradcam_row}
    return {**steps, **_memory_of_packed(quick)}


def cams_suite(quick: bool) -> Steps:
    """Six class activation maps of one picture; ten minutes.

    Times against a forward pass, on convolutional networks with and without a linear head, and on a transformer.
    """
    seconds, rounds = (4, 4) if quick else (60, 20)
    return {name: partial(cams.measure, name, seconds, rounds) for name in cams.NETWORKS}


def errors_suite(quick: bool) -> Steps:
    """Errors of precisions and of blocks of pixels, and memory of SmoothGrad; fifteen minutes.

    The biases and errors of precisions in SmoothGrad's map, and its signal to noise by resolution. Nothing is timed.
    """
    part = 6 if quick else smoothgrad.PART
    steps: Steps = {
        f"{name}, biases of precisions": partial(smoothgrad.faithfulness, name, part=part) for name in NETWORKS
    }
    most = 60 if quick else resolution.MOST
    steps.update({f"{name}, signal to noise": partial(resolution.measure, name, most=most) for name in NETWORKS})
    return {**steps, **_memory_of_smoothgrad(quick)}


def _memory_of_smoothgrad(quick: bool) -> Steps:
    samples, processes = ((4, 50), 1) if quick else ((4, 50, 200, 400), 5)
    return {"memory of SmoothGrad": partial(memory.smoothgrad, samples, torch.get_num_threads(), processes)}


def _memory_of_packed(quick: bool) -> Steps:
    threads, processes = torch.get_num_threads(), 1 if quick else 5
    return {
        f"{name}, memory of packed weights": partial(packed_memory.measure, name, threads, processes)
        for name in NETWORKS
    }


def server_suite(quick: bool) -> Steps:
    """This handler and the stock one; ten minutes.

    Locust's load on two TorchServes side by side: latency, rate, size, processor time, time to ready.
    """
    seconds, rounds = (8, 3) if quick else (50, 10)
    return {f"servers, {name}": partial(servers.measure, seconds, rounds=rounds, networks=[name]) for name in NETWORKS}


def answers_suite(quick: bool) -> Steps:
    """Grad-CAM's answers by the photograph's size; six minutes.

    Latency against a prediction through a real server: JSON at four sizes, and overlays in three formats.
    """
    seconds, rounds = (10.0, 2) if quick else (150.0, 10)
    return {f"answers, {name}": partial(answers.measure, name, seconds, rounds) for name in NETWORKS}


def rates_suite(quick: bool, against: Path | None = None) -> Steps:
    """Rows a second of eight clients; six minutes.

    They send photographs of 2.5 megapixels, half of them for explanations, in both modes.
    """
    seconds, rounds = (10.0, 2) if quick else (130.0, 10)
    return {f"rows a second, {name}": partial(rates.measure, name, against, seconds, rounds) for name in NETWORKS}


def contention_suite(quick: bool) -> Steps:
    """Predictions where the processor is short; twelve minutes.

    Alone, beside another process and under quotas of cores, with OpenMP's settings; the stock handler stands beside.
    """
    seconds, rounds = (8.0, 1) if quick else (90.0, 8)
    steps: Steps = {"all cores": partial(contention.unlimited, 2 * seconds, rounds)}
    for cores in contention.QUOTAS:
        steps[f"quota of {cores:g} cores"] = partial(contention.limited, cores, seconds, rounds)
    return steps


def smoothdiff_suite(quick: bool) -> Steps:
    """The time of SmoothDiff against Captum's SmoothGrad; thirteen minutes."""
    seconds, rounds = (8.0, 2) if quick else (120.0, 10)
    return {f"{name}, SmoothDiff": partial(smoothdiff.seconds_of, name, seconds, rounds) for name in NETWORKS}


def distances_suite(quick: bool) -> Steps:
    """The distances of SmoothDiff and SmoothGrad to a SmoothGrad of 2,000 samples of another seed; an hour.

    Nothing is timed.
    """
    pictures, reference = (3, 100) if quick else (smoothdiff.PICTURES, smoothdiff.REFERENCE)
    return {f"{name}, distances": partial(smoothdiff.distances, name, pictures, reference) for name in NETWORKS}


def scaling_suite(quick: bool) -> Steps:
    """The growth of costs, with plots.

    The costs are shown over the batch's size, the samples, the targets, the photograph's megapixels and the clients.
    """
    seconds, rounds = (8, 2) if quick else (50, 8)
    return {f"over the {axis}": partial(step, seconds, rounds) for axis, step in scaling.STEPS.items()}


def limits_suite(quick: bool) -> Steps:
    """Where the time goes; nine minutes.

    The operations of passes, gradients and SmoothGrad, and how often rounding shows in gradients.
    """
    return {
        "operations": partial(operations.measure, passes=5 if quick else operations.PASSES),
        "where the time of SmoothGrad goes": partial(limits.measure, copies=40 if quick else limits.COPIES),
    }


def gpu_suite(quick: bool) -> Steps:
    """The library on a CUDA device; under 8 minutes, no network."""
    stopwatch.cuda()
    seconds, rounds = (8, 8) if quick else (25, 20)
    return {"CUDA": partial(gpu.measure, seconds, rounds)}


def live_suite(quick: bool, method: tuple[str, ...] = ()) -> Steps:
    """Predictions beside explanations; half an hour.

    TorchServe's ordinary mode and continuous batching.
    """
    effort = replace(live.QUICK if quick else live.DEFAULT, methods=method)
    return {"predictions beside explanations": partial(live.measure, effort)}


def photographs_suite(quick: bool) -> Steps:
    """Predictions beside large pictures; five minutes."""
    seconds, rounds = (6.0, 1) if quick else (30.0, 3)
    return {"predictions beside large pictures": partial(photographs.measure, seconds, rounds)}


def endurance_suite(minutes: float) -> Steps:
    """Mixed requests for a long time.

    To continuous batching: wrong answers, memory, open files, deaths.
    """
    return {f"{minutes:g} minutes of mixed requests": partial(endurance.measure, minutes)}


def deaths_suite(count: int) -> Steps:
    """Deaths of the worker under load.

    The time until it serves again, and the clients without an answer.
    """
    return {f"{count} deaths of the worker": partial(deaths.measure, count)}


def soak_suite(count: int) -> Steps:
    """The memory of one process over many explanations."""
    return {f"{count} explanations": partial(soak.measure, count, torch.get_num_threads())}
