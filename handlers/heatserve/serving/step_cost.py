"""The cost of a chunk's longest step: a fixed time, and a time for each row, learned from the chunks that are done.

A processor's time is mostly for the rows. A card's time is mostly fixed while its passes are small.
"""

from __future__ import annotations

#: The weight of the newest chunk.
_NEWEST = 0.3
#: A step counts for at most this many times the expected time: a pause of the machine says little about its passes.
_LONGEST = 2.0
#: The spread of the numbers of rows below which the slope stays as it was, as a share of their mean.
_ALIKE = 0.1


class StepCost:
    """The line `fixed + per_row * rows` of least squares, in which older chunks count for less.

    Neither part is negative. Chunks of one size say nothing of the slope: it stays as it was, and at first the time
    counts as proportional to the rows.

    varied: whether chunks of two sizes were seen.
    """

    def __init__(self) -> None:
        self.varied = False
        self._count = 0
        self._rows = self._seconds = 0.0
        self._spread = self._together = 0.0
        self._per_row = 0.0

    def of(self, rows: float) -> float:
        """The seconds of a step with so many rows."""
        return self._seconds + self._per_row * (rows - self._rows)

    def learn(self, rows: int, seconds: float) -> None:
        """Takes the longest step of a chunk."""
        self._count += 1
        if self._count == 1:
            self._rows, self._seconds, self._per_row = rows, seconds, seconds / rows
            return
        expected = max(self.of(rows), self._seconds * max(1.0, rows / self._rows))
        weight = max(_NEWEST, 1 / self._count)
        further, longer = rows - self._rows, min(seconds, _LONGEST * expected) - self._seconds
        self.varied = self.varied or further != 0
        self._rows += weight * further
        self._seconds += weight * longer
        self._spread = (1 - weight) * (self._spread + weight * further**2)
        self._together = (1 - weight) * (self._together + weight * further * longer)
        alike = (_ALIKE * self._rows) ** 2
        slope = (self._together + alike * self._per_row) / (self._spread + alike)
        self._per_row = min(max(0.0, slope), self._seconds / self._rows)
