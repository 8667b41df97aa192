"""The serving loop: the rows that wait for their answers, and the next step of work on them.

A step decodes new pictures and does one forward pass for all of them. Or it is a piece of one chunk of the long
explanations. Without a pool it may also be the decoding of one picture that takes long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import zip_longest

from ..engine import Explainer, derivative_bytes
from ..imaging import Preprocess
from .admission import Admission
from .chunks import Chunks
from .contract import Row
from .errors import Refusal
from .faults import Faults
from .items import Item, OpenRow
from .passes import Passes
from .pictures import Pictures
from .pool import Pool
from .protocols import protocol_of
from .requests import RequestParser
from .scheduling import Policy
from .settings import Limits
from .states import Decoded, Refused, UnderWay

#: The most seconds that a call waits for the pool alone, where new rows may come in between two calls.
REST = 0.03


class Loop:
    """The rows in progress of one worker.

    rows: by their id, in the order in which they were admitted.
    """

    def __init__(
        self,
        explainer: Explainer,
        parser: RequestParser,
        preprocess: Preprocess,
        limits: Limits,
        policy: Policy,
        pool: Pool,
        grpc_stream: bool = False,
    ) -> None:
        self.rows: dict[str, OpenRow] = {}
        self.faults = Faults()
        self._explainer = explainer
        derivatives = partial(derivative_bytes, explainer.network)
        self._admission = Admission(parser, preprocess, limits, policy, self.faults, explainer.device, derivatives)
        self._pictures = Pictures(self._admission, pool, policy, self.faults)
        self._passes = Passes(explainer, policy, self.faults)
        self._chunks = Chunks(explainer, self._passes, policy, self.faults)
        self._policy = policy
        self._pool = pool
        self._shares_cores = explainer.device.type == "cpu"
        self._grpc_stream = grpc_stream
        self._until = math.inf
        self._decoding = 0.0

    @property
    def busy(self) -> bool:
        """Whether a step is left to do."""
        return any(not row.done for row in self.rows.values())

    @property
    def under_way(self) -> int:
        """The number of explanations that take further passes."""
        return sum(item.long for item in self._items())

    @property
    def done(self) -> list[str]:
        """The ids of the finished rows."""
        return [row_id for row_id, row in self.rows.items() if row.done]

    @property
    def late(self) -> bool:
        """Whether admitting or answering another row would make the rows of the next call wait too long."""
        return self._policy.clock() > self._until

    def left(self) -> float | None:
        """Seconds until the call is late; None for any number."""
        return None if math.isinf(self._until) else self._until - self._policy.clock()

    @property
    def pictures_first(self) -> bool:
        """Whether this thread helps with pictures and answers before it goes on with the network.

        A pass on the processor has the cores to itself then, as one of its threads that is held up holds up the others.
        On another device the pass goes first, and the pool works beside it.
        """
        return self._shares_cores or not self._network_waits

    @property
    def _network_waits(self) -> bool:
        """Whether there is a pass or a chunk to do."""
        return any(item.wants_chunks or isinstance(item.state, Decoded) for item in self._items())

    def streaming(self) -> dict[str, Item]:
        """The unfinished items that have a line of their stream to send, by the id of their row.

        A row whose last line is still being written is left out.
        """
        rows = {
            name: row.streaming
            for name, row in self.rows.items()
            if row.draft is None and (row.protocol.http or self._grpc_stream)
        }
        return {name: item for name, item in rows.items() if item is not None}

    def begin(self, present: Collection[str]) -> int:
        """Starts a call for the rows with these ids. Any other row is dropped: its client has gone.

        Gives the number of rows that were dropped.
        """
        self._until = self._policy.clock() + self._policy.patience
        gone = [row_id for row_id in self.rows if row_id not in present]
        for row_id in gone:
            self.rows.pop(row_id).give_up()
        self._chunks.keep_for(self._unfinished())
        return len(gone)

    def admit(self, row: Row) -> OpenRow:
        """Reads a new row and decodes nothing of it. A fault of one of its inputs becomes that item's refusal."""
        protocol = protocol_of(row.body, row.headers)
        others = [*self._items()]
        entry = self._policy.entry([item for item in others if item.long])
        opened = OpenRow(protocol)
        for given in protocol.inputs:
            item = self._admission.admit(given, protocol, row.headers, opened.items, others)
            item.served = entry
            opened.items.append(item)
        self.rows[row.id] = opened
        return opened

    def step(self) -> None:
        """Does the next piece of work. A fault ends the item that it belongs to."""
        started = time.perf_counter()
        if self._pool.threads:
            self._pictures.together(self._items(), lambda: self.pictures_first, self.left)
        else:
            self._pictures.one_by_one(self._items(), lambda: self.late)
        self._decoding += time.perf_counter() - started
        self._rest()
        ready = [item for item in self._items() if isinstance(item.state, Decoded) and not item.state.through_input]
        # A request of many pictures shares its passes with others, and none fills the memory.
        ready = ready[: self._explainer.rows]
        if self._policy.chunk_next(bool(ready), any(item.wants_chunks for item in self._items())):
            self._advance()
        elif ready:
            self._passes.forward(ready, self._decoding)
            self._decoding = 0.0
        self._conclude_overdue()
        # The time that a step took is no reason to keep its answers back.
        self._until = self._policy.clock() + self._policy.patience

    def take(self, row_id: str) -> OpenRow:
        """Hands a row over and forgets it."""
        return self.rows.pop(row_id)

    def fail(self, rows: Sequence[Row], error: Exception) -> dict[str, OpenRow]:
        """Forgets all rows, and refuses those that are given. They come back by their id."""
        begun, self.rows = self.rows, {}
        for row in begun.values():
            row.give_up()
        self._chunks.drop()
        refusal = self.faults.refusal(error)
        failed = {}
        for given in rows:
            failed[given.id] = begun.get(given.id) or _unread(given, refusal)
            failed[given.id].refuse(refusal)
        return failed

    def _items(self) -> Iterator[Item]:
        """The first item of every row, then the second of those that have one, and so on."""
        turns = zip_longest(*(row.items for row in self.rows.values()))
        return (item for turn in turns for item in turn if item is not None)

    def _unfinished(self) -> list[Item]:
        return [item for item in self._items() if not item.done]

    def _rest(self) -> None:
        """Waits for the pool where there is nothing else to do. New rows may come, so that it does not wait long."""
        pending = [future for row in self.rows.values() for future in row.pending]
        due = any(row.done and row.draft is None for row in self.rows.values())
        if pending and not due and not self._network_waits:
            self._pool.rest(pending, None if math.isinf(self._until) else REST)
            self._pictures.take(self._items())

    def _advance(self) -> None:
        """Does one step of the chunk under way or of the next one, or decodes one picture that takes long."""
        chunk = self._chunks.keep_for(self._unfinished())
        if chunk is None:
            claims = self._policy.order([item for item in self._items() if item.wants_chunks])
            if claims[0].undecoded:
                self._decode_costly(claims[0])
                return
            chunk = self._chunks.start(claims)
        self._chunks.advance(chunk)

    def _decode_costly(self, item: Item) -> None:
        started = time.perf_counter()
        item.served += 1
        self._admission.decode(item)
        self._policy.decoded(time.perf_counter() - started)

    def _conclude_overdue(self) -> None:
        """Ends the items whose deadline has come and that have an estimate of every map."""
        now = self._policy.clock()
        for item in self._items():
            if isinstance(item.state, UnderWay) and item.deadline <= now and item.state.presentable:
                try:
                    item.state = item.state.concluded()
                except Exception as error:
                    item.refuse(self.faults.record(error))


def _unread(row: Row, refusal: Refusal) -> OpenRow:
    return OpenRow(protocol_of(row.body, row.headers), [Item(Refused(refusal))])
