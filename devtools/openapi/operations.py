"""The parts of an endpoint: what it takes, what it gives, how it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devtools.openapi.options import Schema, ref
from heatserve.serving.errors import STATUSES
from heatserve.serving.options import MEDIA_TYPES, OUTPUTS, PICTURES, STREAM

JSON = OUTPUTS["json"]
#: What the handler answers, and what the frontend does where there is no such model.
REFUSALS = {**STATUSES, 404: ("ModelNotFoundException", "TorchServe knows no such model, or not this version of it")}
_LINES = "lines of JSON, each an Explanation; where it fails after the first, the last one is an Error"


def operation(
    name: str,
    summary: str,
    parameters: Sequence[str],
    body: Schema | None,
    answer: Schema,
    envelopes: Sequence[str] = (),
    without: Sequence[int] = (),
) -> Schema:
    """envelopes: KServe's. Where all instances fail the status says so, and the body is the envelope all the same."""
    refusals: Schema = {}
    for status in sorted(REFUSALS):
        if status not in without:
            kinds = {"anyOf": [ref(kind) for kind in ("KServeError", "Error", *envelopes)]}
            refusals[str(status)] = refusal(status, kinds) if envelopes else ref(str(status), "responses")
    return {
        "operationId": name,
        "summary": summary,
        **({"parameters": [ref(each, "parameters") for each in parameters]} if parameters else {}),
        **({"requestBody": body} if body else {}),
        "responses": {"200": answer, **refusals},
    }


def refusal(status: int, body: Schema) -> Schema:
    name, meaning = REFUSALS[status]
    seconds = {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}
    found: Schema = {"description": f"{name}: {meaning}"}
    if status == 503:
        found["headers"] = {"Retry-After": seconds}
    return {**found, "content": {JSON: {"schema": body}}}


def content(body: Schema) -> Schema:
    return {"description": "the answer", "content": {JSON: {"schema": body}}}


def explained() -> Schema:
    """An explanation in the form that was asked for."""
    kinds: dict[str, Schema] = {"json": ref("Explanation"), STREAM: {"type": "string", "description": _LINES}}
    for name in MEDIA_TYPES:
        if name not in kinds:
            said = "the map laid over the photograph" if name in PICTURES else "float32 (H, W), or (targets, H, W)"
            kinds[name] = {"description": said}
    content = {media: {"schema": kinds[name]} for name, media in MEDIA_TYPES.items()}
    return {
        "description": "the answer; pictures and arrays say in headers what they show",
        "headers": _said(),
        "content": content,
    }


def _said() -> Schema:
    text: Schema = {"type": "string"}
    number: Schema = {"type": "number"}
    whole: Schema = {"type": "integer", "minimum": 0}
    named = {
        "X-Prediction-Index": whole, "X-Prediction-Label": text, "X-Prediction-Probability": number,
        "X-Explanation-Method": text, "X-Explanation-Target-Index": whole, "X-Explanation-Target-Label": text,
        "X-Explanation-Scale": number, "X-Explanation-Samples": whole, "X-Explanation-Seed": whole,
        "X-Explanation-Standard-Error": number,
    }  # fmt: skip
    return {name: {"schema": kind} for name, kind in named.items()}


def json(name: str) -> Schema:
    return {"content": {JSON: {"schema": ref(name)}}, "required": True}


def bodies(as_json: str, as_form: str) -> Schema:
    """A picture as it is, or with options beside it."""
    forms: dict[str, Any] = dict.fromkeys(("multipart/form-data", "application/x-www-form-urlencoded"), ref(as_form))
    kinds: Schema = {"application/octet-stream": {}, "image/*": {}, JSON: ref(as_json), **forms}
    return {"content": {media: {"schema": kind} for media, kind in kinds.items()}, "required": True}
