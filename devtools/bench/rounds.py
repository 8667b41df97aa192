"""Interleaved rounds, A B C A B C …: other work of the machine disturbs all contestants alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

#: A piece of work.
Action = Callable[[], object]
#: A piece of work that gives its cost, mostly in seconds.
Measure = Callable[[], float]
#: A function that is told the share that is done, from 0 to 1.
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Ratio:
    """The median of per-round ratios and its 95 % interval."""

    median: float
    low: float
    high: float
    rounds: int


def timed(action: Action) -> Measure:
    """A measure: the seconds that an action takes."""

    def measure() -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    return measure


def interleave(
    contestants: Mapping[str, Measure],
    seconds: float,
    *,
    warm_up: int = 3,
    least: int = 10,
    progress: Progress = lambda share: None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, list[float]]:
    """Calls the contestants in turn, and gives the values that each measured, one a round.

    seconds: after them no new round starts, once there are `least` rounds.
    warm_up: the number of rounds before, which do not count.

    Garbage is collected between the rounds, not within.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    with _no_garbage_collection():
        for _ in range(warm_up):
            for measure in contestants.values():
                measure()
        started, rounds = clock(), 0
        while rounds < least or clock() - started < seconds:
            gc.collect()
            for name, measure in contestants.items():
                found[name].append(measure())
            rounds += 1
            progress(min(rounds / least, (clock() - started) / seconds if seconds else 1.0, 1.0))
    return found


class _no_garbage_collection:
    def __enter__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()
        gc.unfreeze()


def ratio(of: list[float], to: list[float], resamples: int = 4000) -> Ratio:
    """The median over rounds of `of / to`; the interval by bootstrap over rounds (Efron 1979), percentiles."""
    ratios = np.asarray(of) / np.asarray(to)
    draws = np.random.default_rng(0).choice(ratios, size=(resamples, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
