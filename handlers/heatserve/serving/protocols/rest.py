"""One picture and its options: raw bodies, forms, JSON, `/invocations`, and gRPC's map of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..answers import Answer, Envelope, Part, refused
from ..errors import Refusal
from ..model_info import ModelInfo
from .protocol import Input

IMAGE_FIELDS = ("data", "body")
#: Fields by which `/invocations` finds the model, and which it hands on with the others.
_ADDRESS = ("model_name",)


class Rest:
    """TorchServe's own protocol: the answer has the form that the client asked for (`formats.py`)."""

    envelope = Envelope.NONE

    def __init__(self, sent: Input, explains: bool, http: bool) -> None:
        self.explains, self.http = explains, http
        self.inputs: Sequence[Input] = (sent,)

    def encode(self, parts: Sequence[Part], model: ModelInfo) -> Answer:
        (part,) = parts
        if isinstance(part, Refusal):
            return self.refused(part, model)
        assert isinstance(part, Answer)  # envelope NONE
        return part

    def refused(self, refusal: Refusal, model: ModelInfo) -> Answer:
        return refused(refusal)


def json_body(row: Any) -> Mapping[Any, Any] | None:
    """The members of a row's JSON body, which TorchServe has parsed; None for a row without one."""
    body = row.get("body") if isinstance(row, Mapping) and "data" not in row else None
    return body if isinstance(body, Mapping) else None


def input_of(row: Any) -> Input:
    """The one picture of a row, and its options: members of a JSON body win over fields of the address."""
    outer = row if isinstance(row, Mapping) else {}
    inner = json_body(row)
    source = outer if inner is None else inner
    fields = {str(name): value for name, value in {**outer, **source}.items() if name not in (*IMAGE_FIELDS, *_ADDRESS)}
    return Input(source.get("data") or source.get("body"), fields)
