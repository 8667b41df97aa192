"""KServe's first protocol: `{"instances": [...]}` in, `{"predictions": [...]}` or `{"explanations": [...]}` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..answers import Answer, Envelope, Part, body_bytes, json_bytes, refused
from ..errors import Refusal
from ..model_info import ModelInfo
from .protocol import Input, enveloped, members
from .rest import IMAGE_FIELDS

#: Members of the whole request that are no options. `signature_name` is TensorFlow Serving's; some clients send it.
_NO_OPTIONS = ("instances", "explain", "signature_name")


class KServeV1:
    """Several pictures in one JSON document. A refusal stands in the place of its picture's answer.

    Options beside `instances` hold for all of them.
    """

    envelope = Envelope.JSON

    def __init__(self, body: Mapping[Any, Any], explains: bool, http: bool) -> None:
        self.explains, self.http = explains, http
        shared = {str(name): value for name, value in body.items() if name not in _NO_OPTIONS}
        found = members("instances", body["instances"])
        self.inputs: Sequence[Input] = (
            [Input(refusal=found)] if isinstance(found, Refusal) else [_input(entry, shared) for entry in found]
        )

    def encode(self, parts: Sequence[Part], model: ModelInfo) -> Answer:
        if len(parts) == 1 and isinstance(parts[0], Refusal):
            return self.refused(parts[0], model)
        name = b"explanations" if self.explains else b"predictions"
        return enveloped(b'{"%s": [%s]}' % (name, b", ".join(map(_entry, parts))), parts)

    def refused(self, refusal: Refusal, model: ModelInfo) -> Answer:
        return refused(refusal, kserve=True)


def _input(entry: Any, shared: Mapping[str, Any]) -> Input:
    """One member of `instances`; its own options win over the shared ones."""
    if isinstance(entry, str):
        return Input(entry, shared)
    if not isinstance(entry, Mapping):
        return Input(refusal=Refusal(400, 'an instance must be {"data": "<base64>", ...} or base64 text'))
    if set(entry) == {"b64"}:
        return Input(entry["b64"], shared)
    own = {str(name): value for name, value in entry.items() if name not in (*IMAGE_FIELDS, "explain")}
    return Input(entry.get("data") or entry.get("body"), {**shared, **own})


def _entry(part: Part) -> bytes:
    """A part's place in the envelope."""
    if isinstance(part, Refusal):
        return json_bytes(part.body(kserve=True))
    assert isinstance(part, Answer)  # envelope JSON
    return body_bytes(part)
