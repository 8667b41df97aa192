"""From the outcomes of a row to its answer: every item is rendered first, then the protocol encodes the parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..imaging import Photograph
from .answers import Answer, Envelope, Part, TensorParts, body_bytes, json_bytes, json_text, ok
from .errors import Refusal
from .facts import ItemFacts
from .faults import Faults
from .formats import FORMATS
from .protocols import RowProtocol
from .rendering import Rendering
from .report import Report
from .settings import Limits
from .states import Described, Finished, Outcome, Refused

#: Bytes left for the envelope around an item.
_ENVELOPE = 1_000


@dataclass(frozen=True)
class Rendered:
    """An answer, or a line of a stream, and the facts on each of its items."""

    answer: Answer
    facts: tuple[ItemFacts, ...]


@dataclass(frozen=True)
class Responder:
    """Makes the answers of one archive. description: the answer to a client that asks for the archive's description."""

    report: Report
    limits: Limits
    faults: Faults
    description: Mapping[str, Any]

    def respond(self, protocol: RowProtocol, outcomes: Sequence[Outcome], lines: int = 0) -> Rendered:
        """The answer to a row. lines: how many lines of its stream were sent before.

        Never raises: an item that cannot be rendered is refused, and so is a row that cannot be encoded.
        """
        rendered = [self._item(protocol, outcome, len(outcomes)) for outcome in outcomes]
        facts = tuple(each for _, each in rendered)
        try:
            answer = self._bounded(protocol.encode([part for part, _ in rendered], self.report.model))
        except Exception as error:
            refusal = self.faults.record(error)
            answer = protocol.refused(refusal, self.report.model)
            facts = tuple(replace(each, refusal=refusal) for each in facts)
        first = facts[0]
        if lines:
            answer = _line(answer, more=False)
        elif first.refusal is None and first.request is not None and first.request.stream:
            answer = _line(answer)
        return Rendered(answer, facts)

    def line(self, finished: Finished) -> Rendered | Refusal:
        """The next line of a stream, of maps as they stand; the refusal of an item that cannot be rendered."""
        try:
            if finished.photograph is None:
                raise ValueError("a prediction has no stream")
            rendering = self._rendering(finished, finished.photograph, 1)
            answer = self._bounded(rendering.answer())
        except Exception as error:
            return self.faults.record(error)
        return Rendered(_line(answer, more=True), (_facts(finished, rendering),))

    def _item(self, protocol: RowProtocol, outcome: Outcome, sharing: int) -> tuple[Part, ItemFacts]:
        """One item's part and facts. sharing: how many items share the answer."""
        if isinstance(outcome, Refused):
            facts = ItemFacts(protocol.explains, outcome.request, outcome.refusal, outcome.seconds)
            return outcome.refusal, facts
        try:
            if isinstance(outcome, Described):
                facts = ItemFacts(protocol.explains, outcome.request, seconds=outcome.seconds)
                return ok(json_bytes(self.description)), facts
            if outcome.photograph is None:
                facts = ItemFacts(protocol.explains, outcome.request, seconds=outcome.seconds)
                return self._prediction(outcome, protocol.envelope), facts
            rendering = self._rendering(outcome, outcome.photograph, sharing)
            part = rendering.tensors() if protocol.envelope is Envelope.TENSORS else rendering.answer()
            return part, _facts(outcome, rendering)
        except Exception as error:
            refusal = self.faults.record(error)
            return refusal, ItemFacts(protocol.explains, outcome.request, refusal, outcome.seconds)

    def _prediction(self, finished: Finished, envelope: Envelope) -> Part:
        """A plain prediction. The host writes the JSON of one that stands alone."""
        prediction = self.report.prediction(finished)
        return TensorParts(json_text(prediction)) if envelope is Envelope.TENSORS else Answer(200, prediction)

    def _rendering(self, finished: Finished, photograph: Photograph, sharing: int) -> Rendering:
        room = self.limits.max_response_bytes // sharing - _ENVELOPE
        return Rendering(self.report, finished, photograph, room)

    def _bounded(self, answer: Answer) -> Answer:
        """An answer within the limit: TorchServe kills a worker over one that is larger. Raises Refusal 413."""
        if len(answer.body) > self.limits.max_response_bytes:
            raise Refusal(413, "the answer would be too large; ask for fewer targets or pictures, no overlay, or png")
        return answer


def _facts(finished: Finished, rendering: Rendering) -> ItemFacts:
    """The facts on an explanation that is rendered."""
    return ItemFacts(
        True,
        finished.request,
        seconds=rendering.seconds,
        attributions=finished.attributions,
        empty_maps=rendering.empty_maps,
    )


def _line(answer: Answer, more: bool | None = None) -> Answer:
    """An answer as a line of a stream."""
    form = FORMATS["ndjson"]
    return replace(answer, body=form.encode(body_bytes(answer)), content_type=form.media_type, more=more)
