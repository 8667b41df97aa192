"""The clock of a recording: it stands still, and moves only by the work of the test networks."""

from __future__ import annotations

import time

_START = 1_700_000_000.0


class Clock:
    """Seconds since a fixed moment.

    seconds_per_row: by how much a test network's forward pass moves the clock, for each row of its batch.
    """

    def __init__(self) -> None:
        self.now = _START
        self.seconds_per_row = 0.0

    def restart(self, seconds_per_row: float) -> None:
        """Goes back to the start, for a new handler."""
        self.now, self.seconds_per_row = _START, seconds_per_row

    def computed(self, rows: int) -> None:
        """A network has computed so many rows."""
        self.now += rows * self.seconds_per_row


CLOCK = Clock()


def install() -> None:
    """Replaces the clocks of Python's `time`. It comes before the import of any module that keeps one of them."""
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name, lambda: CLOCK.now)
        setattr(time, f"{name}_ns", lambda: int(CLOCK.now * 1e9))
