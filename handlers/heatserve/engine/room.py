"""Room: how many rows a pass may hold. Fewer after a lack of memory, and then slowly more again."""

from __future__ import annotations

from collections.abc import Sequence

from .sizes import fitting

#: Full passes without trouble before a larger pass is tried: at first, and at most.
FIRST, LAST = 16, 1024


class Room:
    """The size of a pass, as memory allows it.

    size: the rows that a pass may hold now.
    most: the rows that a pass may hold while memory is not short.
    sizes: the only numbers of rows that a pass may have; empty for any number.
    shortages: how often memory was short, ever.

    Memory is often short for a while only, because another process has it. After some full passes the size is
    therefore doubled. A try that fails costs a forward pass, and so doubles the wait for the next try.
    """

    def __init__(self, most: int, sizes: Sequence[int] = ()) -> None:
        self.sizes = sizes
        self.shortages = 0
        self.reset(most)

    def reset(self, most: int) -> None:
        """Starts again with another size; the count of shortages stays."""
        self.most = self.size = fitting(most, self.sizes)
        self._wait, self._calm, self._tried = FIRST, 0, False

    def short(self, rows: int) -> None:
        """Takes note that there was no memory for a pass of so many rows."""
        self.size = fitting(max(1, min(self.size, rows // 2)), self.sizes)
        if self._tried:
            self._wait = min(LAST, 2 * self._wait)
        self._calm, self._tried = 0, False

    def fitted(self, rows: int) -> None:
        """Takes note that a pass of so many rows went well. A pass below the size says nothing and is ignored."""
        if rows < self.size:
            return
        self._calm += 1
        if self._calm < self._wait:
            return
        self._calm, self._tried = 0, self.size < self.most
        if not self._tried:
            self._wait = FIRST  # the full size has held for as long as the last wait was
        self.size = min(self.most, 2 * self.size)
