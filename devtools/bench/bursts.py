"""The cost of bursts of requests, and the comparison of one contestant's bursts with another's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from devtools.bench.rounds import Ratio, ratio

WORKER, FRONTEND = "worker", "frontend"


@dataclass(frozen=True)
class Burst:
    """The requests that a crowd of clients sends in one round.

    seconds: from the first request to the last answer.
    latencies: of each request, in seconds.
    bytes: of the bodies of all answers.
    cpu: the seconds of processor time of each process, by the process's name.
    batches: the number of batches that the worker was given.
    """

    seconds: float
    latencies: tuple[float, ...]
    bytes: int = 0
    cpu: Mapping[str, float] = field(default_factory=dict)
    batches: int = 0


def latency(of: Sequence[Burst], to: Sequence[Burst]) -> Ratio:
    """The ratio of a round's median latencies."""
    return ratio(*([statistics.median(burst.latencies) for burst in bursts] for bursts in (of, to)))


def rate(of: Sequence[Burst], to: Sequence[Burst]) -> Ratio:
    """The ratio of answers a second; the bursts' sizes may differ."""
    return ratio(*([len(burst.latencies) / burst.seconds for burst in bursts] for bursts in (of, to)))


def processor(of: Sequence[Burst], to: Sequence[Burst], resamples: int = 4000) -> Ratio:
    """The ratio of processor seconds per answer, of all processes and over all rounds.

    The system counts in steps of 10 ms, too coarse for the ratio of one round. The interval is by bootstrap over the
    rounds (Efron 1979), percentiles.
    """
    rounds = len(of)
    draws = np.random.default_rng(0).integers(rounds, size=(resamples, rounds))
    cost, answers = (
        [np.asarray([count(burst) for burst in bursts]) for bursts in (of, to)]
        for count in (lambda burst: sum(burst.cpu.values()), lambda burst: len(burst.latencies))
    )

    def per_answer(index: int) -> np.ndarray:
        found: np.ndarray = cost[index][draws].sum(axis=1) / answers[index][draws].sum(axis=1)
        return found

    low, high = np.percentile(per_answer(0) / per_answer(1), [2.5, 97.5])
    value = (cost[0].sum() / answers[0].sum()) / (cost[1].sum() / answers[1].sum())
    return Ratio(float(value), float(low), float(high), rounds)


def summary(bursts: Sequence[Burst], name: str) -> dict[str, float]:
    """The figures of a contestant over all its rounds. Each key starts with the contestant's name."""
    latencies = [1000 * second for burst in bursts for second in burst.latencies]
    answers, batches = len(latencies), sum(burst.batches for burst in bursts)
    found = {
        "answers": answers,
        "per_second": answers / sum(burst.seconds for burst in bursts),
        **{f"p{share}_ms": float(np.percentile(latencies, share)) for share in (50, 95, 99)},
        "bytes_per_answer": sum(burst.bytes for burst in bursts) / answers,
    }
    for process in bursts[0].cpu:
        found[f"{process}_cpu_ms_per_answer"] = 1000 * sum(burst.cpu[process] for burst in bursts) / answers
    if batches:
        found["answers_per_batch"] = answers / batches
    return {f"{name}_{key}": round(value, 3) for key, value in found.items()}
