"""The items of a row: one for each picture that it brings. An item is a place in the loop that goes through states."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import Refusal
from .protocols import RowProtocol
from .states import STAGES, Admitted, Decoded, Described, Finished, Outcome, Reading, Refused, State, UnderWay


@dataclass(eq=False)
class Item:
    """The place of one picture in the loop. It is equal to itself alone: two clients may send the same bytes.

    deadline: on the loop's clock; infinite for none.
    served: the images that chunks computed for it. Maps that share an image make it count by what it costs.
    passed_over: calls that had no time left to decode its picture.
    lines: of its stream that were sent.
    reading: its picture, while the pool has it.
    seconds: wall time by stage.
    """

    state: State
    deadline: float = math.inf
    served: float = 0.0
    passed_over: int = 0
    lines: int = 0
    reading: Future[Reading] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def done(self) -> bool:
        """Whether its state is an outcome."""
        return isinstance(self.state, (Finished, Refused, Described))

    @property
    def undecoded(self) -> bool:
        """Whether its picture is still to be decoded."""
        return isinstance(self.state, Admitted)

    @property
    def wants_chunks(self) -> bool:
        """Whether its next piece of work is a chunk's."""
        if isinstance(self.state, Admitted):
            return self.state.costly and self.reading is None
        if isinstance(self.state, Decoded):
            return self.state.through_input
        return isinstance(self.state, UnderWay)

    @property
    def long(self) -> bool:
        """Whether it takes chunks: more than the pass that predictions share."""
        request = self.state.request
        return not self.done and request is not None and request.work > 1

    @property
    def work_left(self) -> int:
        """Forward passes still to do, roughly."""
        if isinstance(self.state, UnderWay):
            return sum(group.price * group.left for group in self.state.groups)
        return self.state.request.work if isinstance(self.state, (Admitted, Decoded)) else 0

    @property
    def improvements(self) -> int:
        """The number of lines that are due in its stream by now, without the last one."""
        return self.state.improvements if isinstance(self.state, UnderWay) else 0

    def refuse(self, refusal: Refusal) -> None:
        """Ends it with a refusal."""
        self.state = Refused(refusal, self.state.request)

    def settled(self) -> Outcome:
        """Its outcome, with the seconds that it took. Raises ValueError before it is done."""
        if isinstance(self.state, (Finished, Refused, Described)):
            return replace(self.state, seconds=dict(self.seconds))
        raise ValueError("an item that is not done has no outcome")

    def presented(self) -> Finished:
        """The item as it stands, for a line of its stream. Raises ValueError where it is not under way."""
        if isinstance(self.state, UnderWay):
            return replace(self.state.concluded(), seconds=dict(self.seconds))
        raise ValueError("an item that is not under way has nothing to present")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall time of the work that is done inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


@dataclass(frozen=True)
class Draft:
    """An answer that the pool writes.

    future: gives a `responder.Rendered`, or the refusal of a line.
    item: that a line is of; None for the answer to the row.
    lines: of the item's stream that are sent with this one.
    """

    future: Future[Any]
    item: Item | None = None
    lines: int = 0


@dataclass(eq=False)
class OpenRow:
    """A row that waits for its answer: the protocol that it was sent by, and an item for each of its pictures.

    draft: its answer, or a line of its stream, while the pool has it.
    """

    protocol: RowProtocol
    items: list[Item] = field(default_factory=list)
    draft: Draft | None = None

    @property
    def done(self) -> bool:
        """Whether all of its items are."""
        return all(item.done for item in self.items)

    @property
    def streaming(self) -> Item | None:
        """The item that has a line of its stream to send; None where there is none."""
        return next((item for item in self.items if item.improvements > item.lines), None)

    @property
    def draws(self) -> bool:
        """Whether its answer has a map, which takes time to draw."""
        return any(isinstance(item.state, Finished) and bool(item.state.request.queries) for item in self.items)

    @property
    def pending(self) -> list[Future[Any]]:
        """The work on it that the pool has."""
        found = [item.reading for item in self.items if item.reading is not None]
        return [*found, *([self.draft.future] if self.draft else [])]

    def give_up(self) -> None:
        """Cancels the work on it that the pool has not begun. The result of any other is dropped."""
        for future in self.pending:
            future.cancel()

    def refuse(self, refusal: Refusal) -> None:
        """Ends all of its items with a refusal."""
        for item in self.items:
            item.refuse(refusal)
