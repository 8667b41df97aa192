"""95th percentiles of latencies, compared over all windows: one round is too short for a percentile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from devtools.bench.rounds import Ratio

#: The latencies of each window of one contestant, in seconds.
Windows = Sequence[Sequence[float]]


def p95(windows: Windows) -> float:
    """The 95th percentile in seconds."""
    return float(np.percentile([*chain(*windows)], 95))


def p95_ms(windows: Windows) -> float:
    """The 95th percentile in milliseconds, with one decimal."""
    return round(1000 * p95(windows), 1)


def tail_ratio(beside: Windows, quiet: Windows) -> Ratio:
    """The 95th percentile beside other clients, divided by that of a quiet server."""
    return _compared(beside, quiet, lambda one, other: one / other)


def tail_difference(beside: Windows, quiet: Windows, unit: float) -> Ratio:
    """The 95th percentile beside other clients less that of a quiet server, divided by so many seconds."""
    return _compared(beside, quiet, lambda one, other: (one - other) / unit)


def _compared(
    beside: Windows,
    quiet: Windows,
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray],
    resamples: int = 4000,
) -> Ratio:
    """The comparison with its interval by bootstrap over the single latencies (Efron 1979), percentiles."""
    generator = np.random.default_rng(0)

    def tails(windows: Windows) -> np.ndarray:
        values = np.asarray([*chain(*windows)])
        drawn: np.ndarray = np.percentile(generator.choice(values, size=(resamples, len(values))), 95, axis=1)
        return drawn

    low, high = np.percentile(compare(tails(beside), tails(quiet)), [2.5, 97.5])
    value = compare(np.asarray(p95(beside)), np.asarray(p95(quiet)))
    return Ratio(float(value), float(low), float(high), len(beside))
