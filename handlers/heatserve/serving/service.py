"""The one call of the core: a host hands over all rows that wait, and gets the answers that are ready.

The core knows no host. A host repeats the call for as long as rows wait, and brings new rows in between.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ..engine import Explainer
from .answers import Answer
from .contract import CONTRACT as CONTRACT
from .contract import Row as Row
from .errors import where
from .facts import CallFacts, row_kind
from .integrity import Integrity
from .loop import Loop
from .model_info import ModelInfo
from .responder import Responder
from .settings import Settings
from .writer import Writer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """The result of one call.

    answers: by the id of their row. One that says `more` is a line of a stream, and its row still waits.
    left: whether a row still waits, and the call should be repeated.
    facts: for the metrics.
    lost: whether the device is lost. All rows are answered then, and the process has to be replaced.
    """

    answers: Mapping[str, Answer]
    left: bool = False
    facts: CallFacts = field(default_factory=CallFacts)
    lost: bool = False

    @property
    def lines(self) -> Mapping[str, Answer]:
        """The lines of streams whose rows still wait."""
        return {row_id: answer for row_id, answer in self.answers.items() if answer.more}

    def unanswered(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that still wait."""
        return [row for row in rows if row.id not in self.answers or self.answers[row.id].more]

    def then(self, later: Reply) -> Reply:
        """This result and that of a later call as one."""
        answers = {**self.answers, **later.answers}
        return Reply(answers, later.left, self.facts.then(later.facts), later.lost)


@dataclass(frozen=True)
class Service:
    """One model, ready to answer."""

    explainer: Explainer
    loop: Loop
    writer: Writer
    info: ModelInfo
    integrity: Integrity
    settings: Settings

    @property
    def responder(self) -> Responder:
        """The maker of this archive's answers."""
        return self.writer.responder

    def call(self, rows: Sequence[Row]) -> Reply:
        """Does one step of work for the rows that wait.

        rows: all that wait, those of earlier calls included. A row of an earlier call that is missing is given up.
        A new row is admitted, or left for the next call where there is no time for it. Never raises: an error refuses
        all rows.
        """
        try:
            reply = self._step(rows)
        except Exception as error:
            return self.fail(rows, error)
        return self._unless_lost(rows, reply)

    def fail(self, rows: Sequence[Row], error: Exception) -> Reply:
        """Refuses all rows: an error left no other way. For errors of the host, too. Never raises.

        The reply has no facts on these rows: the metrics count no answer for them.
        """
        logger.error("heatserve: the batch failed: %s", where(error))
        return self._unless_lost(rows, Reply(self._refused(rows, error)))

    def summary(self) -> str:
        """One line for the log."""
        engine = self.explainer
        return (
            f"layer={engine.layers[0] if engine.layers else None} methods={','.join(engine.methods())} "
            f"device={engine.device} threads={torch.get_num_threads()} chunk={engine.chunk} "
            f"precision={engine.precision} folded={engine.optimized.folded} padded={engine.optimized.padded} "
            f"packed={engine.optimized.packed} "
            f"layout={str(engine.optimized.layout).rpartition('.')[2]} verified={str(self.integrity.verified).lower()}"
        )

    def _step(self, rows: Sequence[Row]) -> Reply:
        loop = self.loop
        given_up = loop.begin([row.id for row in rows])
        admitted: dict[str, str] = {}
        for row in rows:
            if row.id not in loop.rows and not (admitted and loop.late):
                admitted[row.id] = row_kind(loop.admit(row))
        loop.step()
        answers, answered = self.writer.write(loop)
        facts = CallFacts(admitted, answered, given_up, loop.under_way, self.explainer.fallbacks)
        # Not before: a fault until here refuses each row in its own protocol, which the loop knows.
        for row_id in answered:
            loop.take(row_id)
        reply = Reply(answers, facts=facts)
        return replace(reply, left=bool(reply.unanswered(rows)))

    def _unless_lost(self, rows: Sequence[Row], reply: Reply) -> Reply:
        """The reply; with the last answers of all rows if the device is lost."""
        lost = self.loop.faults.lost
        if lost is None:
            return reply
        left = reply.unanswered(rows)
        done = [row_id for row_id in self.loop.done if any(row.id == row_id for row in left)]
        answers = {row_id: self.writer.answer(self.loop.take(row_id)).answer for row_id in done}
        refused = self._refused([row for row in left if row.id not in answers], lost)
        return replace(reply, answers={**reply.answers, **answers, **refused}, left=False, lost=True)

    def _refused(self, rows: Sequence[Row], error: Exception) -> dict[str, Answer]:
        failed = self.loop.fail(rows, error)
        return {row_id: self.writer.answer(row).answer for row_id, row in failed.items()}
