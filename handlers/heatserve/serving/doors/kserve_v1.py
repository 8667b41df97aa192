"""KServe's first protocol: `{"instances": [...]}` in, `{"predictions": [...]}` or `{"explanations": [...]}` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Refusal
from .door import MOST, Instance, members
from .rest import IMAGE_FIELDS

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..responses import Answer, Writer

#: Of the whole request, and no options: the second is TensorFlow Serving's, which some clients send along.
_ENVELOPE = ("instances", "explain", "signature_name")


class KServeV1:
    """Several pictures; one that fails is reported in its place. Options of all stand beside `instances`."""

    plain = False
    pictures = False

    def __init__(self, body: Mapping[Any, Any], explains: bool, http: bool) -> None:
        self.explains, self.http = explains, http
        shared = {str(name): value for name, value in body.items() if name not in _ENVELOPE}
        found = members("instances", body["instances"], MOST)
        self.instances: Sequence[Instance] = (
            [Instance(refusal=found)] if isinstance(found, Refusal) else [_instance(entry, shared) for entry in found]
        )

    def answer(self, writer: Writer, exchanges: Sequence[Exchange]) -> Answer:
        answers = [writer.alone(exchange, len(exchanges)) for exchange in exchanges]
        name = "explanations" if self.explains else "predictions"
        if len(answers) == 1 and answers[0].status != 200 and exchanges[0].refusal is not None:
            return self.refused(writer, exchanges[0].refusal)
        bodies = [writer.encoded(answer, exchange) for answer, exchange in zip(answers, exchanges)]
        return writer.enveloped(b'{"%s": [%s]}' % (name.encode(), b", ".join(bodies)), exchanges)

    def refused(self, writer: Writer, refusal: Refusal) -> Answer:
        return writer.refused(refusal, kserve=True)


def _instance(entry: Any, shared: Mapping[str, Any]) -> Instance:
    if isinstance(entry, str):
        return Instance(entry, shared)
    if not isinstance(entry, Mapping):
        return Instance(refusal=Refusal(400, 'an instance must be {"data": "<base64>", ...} or base64 text'))
    if set(entry) == {"b64"}:
        return Instance(entry["b64"], shared)
    own = {str(name): value for name, value in entry.items() if name not in (*IMAGE_FIELDS, "explain")}
    return Instance(entry.get("data") or entry.get("body"), {**shared, **own})
