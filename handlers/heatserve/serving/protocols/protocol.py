"""The interface of a protocol: the inputs that a row brings, and the answer that is made of their rendered parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..answers import Answer, Envelope, Part, ok, refused
from ..errors import Refusal
from ..model_info import ModelInfo

#: The most inputs of one request, and the most maps of all of them. Each input may still be refused for its own
#: pixels, samples and work.
MOST = 64


@dataclass(frozen=True)
class Input:
    """One picture as a client sent it, with the options that stand beside it.

    image: the encoded picture as bytes or base64 text, not checked yet.
    options: by name, not checked yet.
    tensor: numbers of the model's view, sent in place of an encoded picture.
    shape: of the tensor, (channels, H, W).
    refusal: of an input that is refused already; else None.
    """

    image: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tensor: Any = None
    shape: tuple[int, ...] = ()
    refusal: Refusal | None = None


class RowProtocol(Protocol):
    """One row, read by the rules of its protocol.

    explains: whether the client asked for maps.
    http: whether the row came over HTTP; else it came over gRPC.
    envelope: the form in which `encode` takes the parts.
    """

    explains: bool
    http: bool
    envelope: Envelope

    @property
    def inputs(self) -> Sequence[Input]:
        """The row's pictures, at least one."""
        ...

    def encode(self, parts: Sequence[Part], model: ModelInfo) -> Answer:
        """The answer to the row, from one part for each input in their order. May raise Refusal."""
        ...

    def refused(self, refusal: Refusal, model: ModelInfo) -> Answer:
        """The answer to a row that is refused as a whole. Never raises."""
        ...


def over_http(headers: Mapping[str, Any]) -> bool:
    """Whether a row came over HTTP.

    There the frontend writes a header `Content-Length` for each body. Over gRPC there are no headers, but an entry for
    each input under a name that the client chooses; the value of such an entry is no text.
    """
    return any(
        isinstance(name, str) and name.lower() == "content-length" and isinstance(value, str)
        for name, value in headers.items()
    )


def members(name: str, value: Any) -> list[Any] | Refusal:
    """The list under `name`, of 1 to `MOST` members; or the refusal of anything else."""
    if not isinstance(value, list) or not value:
        return Refusal(400, f"{name} must be a list with one member or more")
    if len(value) > MOST:
        return Refusal(413, f"{name}: at most {MOST} in one request")
    return value


def enveloped(body: bytes, parts: Sequence[Part]) -> Answer:
    """An envelope as an answer: 200 if one part or more is good, else the status of the first refusal."""
    refusals = [part for part in parts if isinstance(part, Refusal)]
    if len(refusals) < len(parts):
        return ok(body)
    return replace(refused(refusals[0]), body=body)
