"""Requests of one client to several endpoints or in several ways, a few in a row and in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import chain

import numpy as np

from devtools.bench.rounds import Progress, interleave

#: The latencies of each round of one contestant, in seconds.
Rounds = list[list[float]]


class Requests:
    """A measure: the median latency of some requests in a row. It keeps the latencies of each call."""

    def __init__(self, ask: Callable[[], object], count: int) -> None:
        self._ask, self._count = ask, count
        self._kept: Rounds = []

    def __call__(self) -> float:
        latencies = []
        for _ in range(self._count):
            started = time.perf_counter()
            self._ask()
            latencies.append(time.perf_counter() - started)
        self._kept.append(latencies)
        return statistics.median(latencies)

    def last(self, rounds: int) -> Rounds:
        return self._kept[-rounds:]


def take(
    asks: Mapping[str, Callable[[], object]], count: int, seconds: float, rounds: int, progress: Progress
) -> dict[str, Rounds]:
    """The latencies of each contestant, a list for each round, for so many seconds and at least so many rounds."""
    contestants = {name: Requests(ask, count) for name, ask in asks.items()}
    found = interleave(contestants, seconds, warm_up=1, least=rounds, progress=progress)
    return {name: contestants[name].last(len(values)) for name, values in found.items()}


def medians(rounds: Rounds) -> list[float]:
    """The median latency of each round, in seconds."""
    return [statistics.median(latencies) for latencies in rounds]


def summary(rounds: Rounds, name: str) -> dict[str, float]:
    """Percentiles over all rounds, in milliseconds. Each key starts with the contestant's name."""
    pooled = [*chain(*rounds)]
    return {f"{name}_p{share}_ms": round(1000 * float(np.percentile(pooled, share)), 1) for share in (50, 95)}
