"""The decoding of the pictures of all rows in progress, in the network's thread or in the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from .admission import Admission
from .faults import Faults
from .items import Item
from .pool import Pool
from .scheduling import Policy
from .states import Admitted


class Pictures:
    """The pictures of one worker's items."""

    def __init__(self, admission: Admission, pool: Pool, policy: Policy, faults: Faults) -> None:
        self._admission = admission
        self._pool = pool
        self._policy = policy
        self._faults = faults

    def one_by_one(self, items: Iterable[Item], late: Callable[[], bool]) -> None:
        """Decodes at least one of the pictures that do not take long, and more while the call has time.

        The picture with the least cost goes first. Each call that passes over a picture makes it count for less.
        """
        quick = [
            (item, (1 + item.state.cost_ms) / (1 + item.passed_over))
            for item in items
            if isinstance(item.state, Admitted) and not item.state.costly
        ]
        for number, (item, _) in enumerate(sorted(quick, key=lambda pair: pair[1])):
            if number and late():
                item.passed_over += 1
            else:
                self._admission.decode(item)

    def together(self, items: Iterable[Item], helps: Callable[[], bool], left: Callable[[], float | None]) -> None:
        """Gives new pictures to the pool, and takes those that are decoded.

        helps: whether this thread has time to decode a picture itself, and to help with all that are not large.
        left: seconds that are left for it.
        """
        items = [item for item in items if isinstance(item.state, Admitted)]
        fresh = [(item, item.state) for item in items if isinstance(item.state, Admitted) and item.reading is None]
        quick = [pair for pair in fresh if not self._large(pair[0])]
        # The one picture of one client is decoded here: to wait for another thread would only take longer.
        own = min(quick, key=lambda pair: pair[1].cost_ms) if quick and helps() else None
        for item, state in fresh:
            if own is None or item is not own[0]:
                work = partial(self._admission.decoded, state)
                item.reading = self._pool.submit(work, state.cost_ms / 1000, self._large(item), state.peak_bytes)
        if own is not None:
            self._admission.decode(own[0])
        if helps():
            waiting = [item.reading for item in items if item.reading is not None and not self._large(item)]
            self._pool.finish(waiting, left)
        self.take(items)

    def take(self, items: Iterable[Item]) -> None:
        """Takes the pictures that the pool has decoded."""
        for item in items:
            reading = item.reading
            if reading is None or not reading.done():
                continue
            item.reading = None
            error = reading.exception()
            if error is not None:
                item.refuse(self._faults.record(error))
            else:
                self._admission.take(item, reading.result())

    def _large(self, item: Item) -> bool:
        return isinstance(item.state, Admitted) and self._policy.large(item.state.cost_ms / 1000)
