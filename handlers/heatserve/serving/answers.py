"""What goes out: the answer to a row, and the rendered parts that a protocol makes it from."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from .errors import Refusal

JSON = "application/json"


class Envelope(enum.Enum):
    """The form in which a protocol wants the parts of an answer.

    NONE: one part, whose answer is the row's.
    JSON: answers of JSON, set into a JSON document.
    TENSORS: maps and pictures, sent as typed tensors.
    """

    NONE = "none"
    JSON = "json"
    TENSORS = "tensors"


@dataclass(frozen=True)
class Answer:
    """An answer to a row, or one line of its stream.

    status: of HTTP.
    body: bytes, or the dict of a plain prediction, which the host encodes as it does the stock handler's.
    more: None for an answer that is whole; in a stream whether more lines follow.
    """

    status: int
    body: bytes | dict[str, Any]
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    more: bool | None = None


@dataclass(frozen=True)
class TensorParts:
    """One item for an envelope of typed tensors.

    about: JSON text on the prediction and its maps.
    maps: float32 (H, W) on the model's view.
    pictures: base64 text in place of maps.
    overlays: base64 text beside the maps.
    """

    about: str
    maps: Sequence[NDArray[np.float32]] = ()
    pictures: Sequence[str] = ()
    overlays: Sequence[str] = ()

    @property
    def count(self) -> int:
        """How many maps the item has, as numbers or as pictures."""
        return max(len(self.maps), len(self.pictures))


#: One item's finished rendering. Envelopes NONE and JSON hold answers, TENSORS holds tensor parts; either a refusal.
Part = Union[Answer, TensorParts, Refusal]


def ok(body: bytes) -> Answer:
    """A good answer of JSON."""
    return Answer(200, body, JSON)


def refused(refusal: Refusal, kserve: bool = False) -> Answer:
    """An error as an answer; kserve: in the shape that KServe's clients expect."""
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    return Answer(refusal.code, json_bytes(refusal.body(kserve)), JSON, headers, refusal.type)


def body_bytes(answer: Answer) -> bytes:
    """An answer's body as bytes; that of a plain prediction as JSON."""
    return answer.body if isinstance(answer.body, bytes) else json_bytes(answer.body)


def json_bytes(content: Any) -> bytes:
    """Valid JSON whatever the model gave: numbers that are not finite become null."""
    try:
        text = json.dumps(content, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError):  # another mapping than a dict, or a number that is not finite
        text = json.dumps(_finite(content), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def json_text(content: Any) -> str:
    """`json_bytes` as text."""
    return json_bytes(content).decode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
