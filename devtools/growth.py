"""The growth of a figure that is read again and again, once it has settled."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

#: Shares of all readings: those before SETTLED are warm-up, and medians are taken over WINDOW.
SETTLED, WINDOW = 0.2, 0.1


def settled_and_end(readings: Sequence[float]) -> tuple[float, float]:
    """The median of a window after a fifth of the readings, and that of one at the end."""
    window = max(1, round(WINDOW * len(readings)))
    first = min(round(SETTLED * len(readings)), len(readings) - window)
    return statistics.median(readings[first : first + window]), statistics.median(readings[-window:])
