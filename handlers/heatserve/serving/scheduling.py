"""Which work comes next where predictions and explanations share one worker. Knows seconds and counts, nothing else.

A *pass* answers all that is new and needs one forward pass: predictions, and maps of the CAM family. A *chunk* is a
piece of one long explanation, done in one or more steps; a picture that takes long to decode counts as one. Predictions
go first; what keeps explanations from starving is `PATIENCE` and `EXCHANGE_RATE`, and what keeps predictions from
waiting is the chunk's size. A picture cannot be cut into steps, so what it took is paid back: until passes have earned
it, no chunk comes before them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

#: A chunk's step at least after so many passes.
PATIENCE = 4
#: Seconds of passes for which a second of chunks is owed: passes of many rows are long, counting them is not enough.
EXCHANGE_RATE = 3.0
#: The longest that a step of a chunk should last, in predictions.
PREDICTIONS_PER_STEP = 2.0
#: Of so many chunks one goes to the least served, whatever the deadlines.
TURNS = 4
#: Seconds that a call takes for what is neither pass nor chunk, at least, where there is so much to do.
LEAST_PATIENCE = 0.05
_SMOOTHING = 0.2


class Claim(Protocol):
    """A long explanation: when it must be answered (inf: whenever), and how many rows it was given."""

    deadline: float
    served: float


Claimant = TypeVar("Claimant", bound=Claim)


class Policy:
    """What is owed to whom, from what was seen so far.

    predictions_per_step: the longest step in predictions; inf where nobody can come in between. clock: seconds.
    """

    def __init__(
        self, predictions_per_step: float = PREDICTIONS_PER_STEP, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.seconds_per_work = 0.03
        self._predictions_per_step = predictions_per_step
        self._prediction_seconds = 0.0
        self._step_seconds = 0.0
        self._size = 1
        self._chunks = 0
        self._passes = 0
        self._credit = 0.0
        self._busy_since: float | None = None

    def costly(self, seconds: float) -> bool:
        """Whether work that lasts so long, and cannot be cut, would hold up the other rows of a call."""
        return seconds > self.patience

    @property
    def patience(self) -> float:
        """Seconds that a call may go on admitting and answering; inf where nobody waits to come in."""
        if math.isinf(self._predictions_per_step):
            return math.inf
        return max(LEAST_PATIENCE, self._predictions_per_step * self._prediction_seconds)

    def chunk_next(self, passes: bool, chunks: bool) -> bool:
        """Whether the next step is a chunk's, where there are passes or chunks to do."""
        if not chunks:
            self._passes, self._credit, self._busy_since = 0, 0.0, None
            return False
        if self._busy_since is None:
            self._busy_since = self.clock()
        if not passes:
            return True
        if self._credit < 0:
            return False
        return self._passes >= PATIENCE or 0 < self._step_seconds <= self._credit

    def order(self, claims: Sequence[Claimant]) -> list[Claimant]:
        """Earliest deadline first, then least served; one chunk in `TURNS` goes by service alone."""
        if self._chunks % TURNS == TURNS - 1:
            return sorted(claims, key=lambda claim: claim.served)
        return sorted(claims, key=lambda claim: (claim.deadline, claim.served))

    def entry(self, claims: Sequence[Claim]) -> float:
        """What a newcomer counts as served: as much as the least served, or it would hold up all the others."""
        return min((claim.served for claim in claims), default=0.0)

    def size(self, largest: int) -> int:
        """The rows of the next chunk."""
        if math.isinf(self._predictions_per_step):
            return largest
        return max(1, min(self._size, largest))

    def passed(self, rows: int, seconds: float, decoding: float = 0.0) -> None:
        """A pass for so many rows is done, in so many seconds. decoding: seconds that their pictures took before.

        A prediction's time is that of its pass: clients choose what decoding takes, and would choose the patience.
        """
        self._passes += 1
        self._credit += (seconds + decoding) / EXCHANGE_RATE
        self._prediction_seconds = _towards(self._prediction_seconds, seconds / rows)

    def stepped(self, seconds: float) -> None:
        """A step of a chunk is done."""
        self._passes = 0
        self._step_seconds = _towards(self._step_seconds, seconds)
        self._credit = max(min(0.0, self._credit), self._credit - seconds)

    def decoded(self, seconds: float) -> None:
        """A picture that takes long to decode is decoded: a turn like a chunk's."""
        self._chunks += 1
        self._passes = 0
        self._credit = max(0.0, self._credit) - seconds

    def finished(self, rows: int, work: int, longest: float) -> None:
        """A chunk of so many rows is done, and its longest step took so many seconds; work: in forward passes."""
        self._chunks += 1
        limit = self._predictions_per_step * self._prediction_seconds
        if longest > limit:
            self._size = max(1, min(self._size, int(rows * limit / longest)))
        elif rows >= self._size and longest * (rows + 1) / rows <= limit:
            self._size = rows + 1
        now = self.clock()
        if self._busy_since is not None and work:
            # By the clock on the wall: what predictions took in between belongs to the pace.
            self.seconds_per_work = _towards(self.seconds_per_work, (now - self._busy_since) / work)
        self._busy_since = now


def _towards(old: float, seen: float) -> float:
    return old + _SMOOTHING * (seen - old) if old else seen
