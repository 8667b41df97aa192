"""Whether what is read again and again goes on growing, once it has settled."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

#: Shares of the readings: what comes before the first is warming up, and medians are taken over the second.
SETTLED, WINDOW = 0.2, 0.1


def settled_and_end(readings: Sequence[float]) -> tuple[float, float]:
    """The median after a fifth of the readings, and that at the end."""
    window = max(1, round(WINDOW * len(readings)))
    first = min(round(SETTLED * len(readings)), len(readings) - window)
    return statistics.median(readings[first : first + window]), statistics.median(readings[-window:])
