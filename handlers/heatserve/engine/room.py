"""How many noisy copies a pass may hold: fewer after a lack of memory, and then slowly more again."""

from __future__ import annotations

#: Full passes without trouble before a larger one is tried, at first and at most.
FIRST, LAST = 16, 1024


class Room:
    """size: the copies that a pass may hold now. most: what it is without a lack of memory.

    Memory is often short for a while only, because somebody else has it. After some full passes the size is doubled; a
    try that fails costs a forward pass, and so doubles the wait for the next one.
    """

    def __init__(self, most: int) -> None:
        self.most = self.size = most
        self._wait, self._calm, self._tried = FIRST, 0, False

    def short(self, rows: int) -> None:
        """Takes note that there was no memory for so many rows."""
        self.size = max(1, min(self.size, rows // 2))
        if self._tried:
            self._wait = min(LAST, 2 * self._wait)
        self._calm, self._tried = 0, False

    def fitted(self, rows: int) -> None:
        """Takes note that a pass of so many rows went well. Small ones say nothing."""
        if rows < self.size:
            return
        self._calm += 1
        if self._calm < self._wait:
            return
        self._calm, self._tried = 0, self.size < self.most
        if not self._tried:
            self._wait = FIRST  # all has been well for as long as was waited last
        self.size = min(self.most, 2 * self.size)
