"""The scheduling policy: it chooses the next work of a worker that predictions and explanations share.

It knows seconds and counts, and nothing else. A *pass* answers all new requests that need one forward pass alone:
predictions, and maps of the CAM family. A *chunk* is a piece of one long explanation, done in one or more steps. A
picture that takes long to decode counts as a chunk.

Predictions go first. `PATIENCE` and `EXCHANGE_RATE` keep explanations from starving. The size of the chunks keeps
predictions from waiting. The decoding of a picture cannot be cut into steps, so its time is paid back: no chunk comes
before a pass until passes have taken `EXCHANGE_RATE` times as long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from .step_cost import StepCost

#: The most passes between two steps of chunks.
PATIENCE = 4
#: Seconds of passes after which chunks get one second. Counting passes is not enough: one with many images takes long.
EXCHANGE_RATE = 3.0
#: The longest step of a chunk, in the time of predictions.
PREDICTIONS_PER_STEP = 2.0
#: One chunk in this many has the next larger size, to see whether rows became cheaper. Its step may be twice the limit.
PROBED = 128
#: Where one row alone is beyond the limit, a chunk may take this many times as long as that row.
ALONE = 1.25
#: One chunk in this many goes to the claim with the fewest images so far, whatever the deadlines.
TURNS = 4
#: The least seconds that a call may spend on admitting, decoding and answering, beside its passes and chunks.
LEAST_PATIENCE = 0.05
_SMOOTHING = 0.2


class Claim(Protocol):
    """A long explanation that waits for its next chunk.

    deadline: seconds of the clock; infinite for none.
    served: the images that chunks computed for it so far.
    """

    deadline: float
    served: float


Claimant = TypeVar("Claimant", bound=Claim)


class Policy:
    """The policy of one worker. It learns from the work that is done.

    predictions_per_step: the longest step of a chunk, in the time of predictions; infinite where no request can come in
    between two steps.
    clock: gives seconds.
    sizes: the only numbers of images that a chunk may have, ascending from 1; none for any number.
    """

    def __init__(
        self,
        predictions_per_step: float = PREDICTIONS_PER_STEP,
        clock: Callable[[], float] = time.monotonic,
        sizes: Sequence[int] = (),
    ) -> None:
        self.clock = clock
        self.seconds_per_work = 0.03
        self._predictions_per_step = predictions_per_step
        self._prediction_seconds = 0.0
        self._step_seconds = 0.0
        self._sizes = sizes
        self._size = 1
        self._cost = StepCost()
        self._chunks = 0
        self._passes = 0
        self._credit = 0.0
        self._busy_since: float | None = None

    def costly(self, seconds: float) -> bool:
        """Whether work that takes so many seconds, and cannot be cut, makes the other rows of a call wait too long."""
        return seconds > self.patience

    def large(self, seconds: float) -> bool:
        """Whether work that a pool can do beside the network is left to it: no call waits for it then.

        Clients of a slow network have more patience, but they need none here.
        """
        return math.isfinite(self._predictions_per_step) and seconds > LEAST_PATIENCE

    @property
    def patience(self) -> float:
        """Seconds for which a call may admit and answer rows; infinite where no request can come in between."""
        if math.isinf(self._predictions_per_step):
            return math.inf
        return max(LEAST_PATIENCE, self._predictions_per_step * self._prediction_seconds)

    def chunk_next(self, passes: bool, chunks: bool) -> bool:
        """Whether the next step belongs to a chunk. passes, chunks: whether there is such work to do."""
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
        """The claims in the order of their turns: earliest deadline first, then fewest images served.

        For one chunk in `TURNS` deadlines do not count.
        """
        if self._chunks % TURNS == TURNS - 1:
            return sorted(claims, key=lambda claim: claim.served)
        return sorted(claims, key=lambda claim: (claim.deadline, claim.served))

    def entry(self, claims: Sequence[Claim]) -> float:
        """The images that a new claim counts as served.

        They are those of the least served claim, or the new one would delay all others.
        """
        return min((claim.served for claim in claims), default=0.0)

    def size(self, largest: int) -> int:
        """The number of images in the next chunk."""
        if math.isinf(self._predictions_per_step):
            return largest
        return self._allowed(max(1, min(self._size, largest)))

    def passed(self, images: int, seconds: float, decoding: float = 0.0) -> None:
        """Learns that a pass is done.

        The time of a prediction is that of its pass alone. Clients choose the time of decoding, and could otherwise
        choose the patience.

        decoding: seconds in which the pictures of the pass were decoded.
        """
        self._passes += 1
        self._credit += (seconds + decoding) / EXCHANGE_RATE
        self._prediction_seconds = _towards(self._prediction_seconds, seconds / images)

    def stepped(self, seconds: float) -> None:
        """Learns that a step of a chunk is done."""
        self._passes = 0
        self._step_seconds = _towards(self._step_seconds, seconds)
        self._credit = max(min(0.0, self._credit), self._credit - seconds)

    def decoded(self, seconds: float) -> None:
        """Learns that a picture that takes long was decoded. It is a turn, as a chunk is."""
        self._chunks += 1
        self._passes = 0
        self._credit = max(0.0, self._credit) - seconds

    def finished(self, size: int, work: int, longest: float) -> None:
        """Learns that a chunk is done.

        size: the number of images in its pass.
        work: in forward passes.
        longest: of its steps, in seconds.
        """
        self._chunks += 1
        size = next((allowed for allowed in self._sizes if allowed >= size), size)  # a chunk in between is padded
        self._cost.learn(size, longest)
        self._size = self._suitable(size)
        now = self.clock()
        if self._busy_since is not None and work:
            # Wall time: the predictions in between belong to the pace.
            self.seconds_per_work = _towards(self.seconds_per_work, (now - self._busy_since) / work)
        self._busy_since = now

    def _suitable(self, size: int) -> int:
        """The largest size whose longest step is short enough, at most twice the largest so far.

        Only a try shows that more rows take hardly longer, so a few chunks are one size larger.

        size: of the chunk that is done.
        """
        limit = self._predictions_per_step * self._prediction_seconds
        limit = max(limit, ALONE * self._cost.of(1))
        most = 2 * size if size >= self._size else self._size
        fitting = (count for count in range(most, 1, -1) if self._cost.of(count) <= limit)
        found = self._allowed(next(fitting, 1))
        if not self._cost.varied or self._chunks % PROBED == 0:
            larger = (count for count in self._sizes if count > found)
            return next(larger, found) if self._sizes else found + 1
        return found

    def _allowed(self, count: int) -> int:
        """The largest allowed size up to a number of images."""
        return max((size for size in self._sizes if size <= count), default=1) if self._sizes else count


def _towards(old: float, new: float) -> float:
    """A moving average."""
    return old + _SMOOTHING * (new - old) if old else new
