"""The writer: it makes the answers and the lines of streams that are due, in this thread or in the pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Union

from .answers import Answer
from .errors import Refusal
from .facts import ItemFacts
from .faults import Faults
from .items import Draft, Item, OpenRow
from .loop import Loop
from .pool import Pool
from .responder import Rendered, Responder

Work = Callable[[], Union[Rendered, Refusal]]


@dataclass(frozen=True)
class _Due:
    """An answer that is to be written. item: that a line is of; None for the answer to the row."""

    row_id: str
    row: OpenRow
    item: Item | None = None


class Writer:
    """The writer of one worker."""

    def __init__(self, responder: Responder, pool: Pool, faults: Faults) -> None:
        self.responder = responder
        self._pool = pool
        self._faults = faults

    def answer(self, row: OpenRow) -> Rendered:
        """The answer to a row whose items are done. It never raises an Exception."""
        return self._answering(row)()

    def write(self, loop: Loop) -> tuple[dict[str, Answer], dict[str, Sequence[ItemFacts]]]:
        """The answers and lines that can be sent by the end of this call, and the facts of the answers, by row.

        An answer without a map is written at once. With a pool the others are written in it beside the next step of the
        loop, but where this thread has nothing better to do, it helps. One answer at least is written in a call.
        """
        written: dict[str, Answer] = {}
        facts: dict[str, Sequence[ItemFacts]] = {}
        drawn = []
        for due in _due(loop):
            if self._pool.threads and (due.item is not None or due.row.draws):
                drawn.append(due)
            elif due.item is not None or not (facts and loop.late):
                self._sent(due, self._work(due)(), written, facts)
        first = loop.pictures_first
        # The one answer to one client is written here: to wait for another thread would only take longer.
        own = drawn.pop(0) if drawn and first and not (written and loop.late) else None
        for due in drawn:
            self._hand_over(due)
        if own is not None:
            self._sent(own, self._work(own)(), written, facts)
        if first:
            self._pool.finish([row.draft.future for row in loop.rows.values() if row.draft], loop.left)
        self._collect(loop, written, facts)
        # In the order of admission, whichever was written first.
        return written, {row_id: facts[row_id] for row_id in loop.rows if row_id in facts}

    def _answering(self, row: OpenRow) -> Callable[[], Rendered]:
        """The work of writing an answer. It has all that it needs, and another thread may do it."""
        outcomes = [item.settled() for item in row.items]
        return partial(self.responder.respond, row.protocol, outcomes, row.items[0].lines)

    def _work(self, due: _Due) -> Work:
        if due.item is None:
            return self._answering(due.row)
        try:
            return partial(self.responder.line, due.item.presented())
        except Exception as error:
            return partial(_same, self._faults.record(error))

    def _hand_over(self, due: _Due) -> None:
        lines = due.item.improvements if due.item is not None else 0
        due.row.draft = Draft(self._pool.submit(self._work(due)), due.item, lines)

    def _collect(self, loop: Loop, written: dict[str, Answer], facts: dict[str, Sequence[ItemFacts]]) -> None:
        """Takes all that the pool has written."""
        for row_id, row in loop.rows.items():
            draft = row.draft
            if draft is None or not draft.future.done():
                continue
            row.draft = None
            due = _Due(row_id, row, draft.item)
            error = draft.future.exception()
            if error is None:
                self._sent(due, draft.future.result(), written, facts, draft.lines)
                continue
            refusal = self._faults.record(error)
            if draft.item is not None:
                draft.item.refuse(refusal)
            else:
                row.refuse(refusal)
                self._sent(due, self.answer(row), written, facts)

    def _sent(
        self,
        due: _Due,
        rendered: Rendered | Refusal,
        written: dict[str, Answer],
        facts: dict[str, Sequence[ItemFacts]],
        lines: int | None = None,
    ) -> None:
        """Puts an answer with those that the call sends. A fault of a line ends its item.

        lines: of the item's stream that are sent with this one; None for all that are due.
        """
        item = due.item
        if isinstance(rendered, Refusal):
            if item is not None:
                item.refuse(rendered)
            return
        written[due.row_id] = rendered.answer
        if item is None:
            facts[due.row_id] = rendered.facts
        else:
            item.lines = item.improvements if lines is None else lines
            item.seconds["render"] = rendered.facts[0].seconds["render"]


def _due(loop: Loop) -> list[_Due]:
    """All that is due and not being written: the answers of finished rows, then the lines of the others."""
    done = [_Due(row_id, loop.rows[row_id]) for row_id in loop.done if loop.rows[row_id].draft is None]
    return [*done, *(_Due(row_id, loop.rows[row_id], item) for row_id, item in loop.streaming().items())]


def _same(refusal: Refusal) -> Refusal:
    return refusal
