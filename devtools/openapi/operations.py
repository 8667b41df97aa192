"""The parts of an endpoint: its body, its answer and its refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devtools.openapi.options import Schema, ref
from heatserve.engine import ACTIVATIONS
from heatserve.serving.answers import JSON
from heatserve.serving.errors import STATUSES
from heatserve.serving.formats import FORMATS, Content

#: The handler's refusals, and the frontend's of a model that it does not know.
REFUSALS = {**STATUSES, 404: ("ModelNotFoundException", "TorchServe knows no such model, or not this version of it")}
#: The schema of an explanation, by the content of its format.
_EXPLAINED: dict[Content, Schema] = {
    Content.DOCUMENT: ref("Explanation"),
    Content.LINES: {
        "type": "string",
        "description": "lines of JSON, each an Explanation; a stream that fails later ends with an Error",
    },
    Content.PICTURE: {"description": "the map laid over the photograph"},
    Content.ARRAY: {"description": "float32 (H, W), or (targets, H, W)"},
}


def operation(
    name: str,
    summary: str,
    parameters: Sequence[str],
    body: Schema | None,
    answer: Schema,
    envelopes: Sequence[str] = (),
    without: Sequence[int] = (),
) -> Schema:
    """An endpoint.

    parameters: names of components.
    envelopes: KServe's answers for it. A request whose inputs all fail has a status of failure and an envelope as body.
    without: statuses that it never has.
    """
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
    """A refusal of one status, with a body of JSON."""
    name, meaning = REFUSALS[status]
    seconds = {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}
    found: Schema = {"description": f"{name}: {meaning}"}
    if status == 503:
        found["headers"] = {"Retry-After": seconds}
    return {**found, "content": {JSON: {"schema": body}}}


def content(body: Schema) -> Schema:
    """An answer with a body of JSON."""
    return {"description": "the answer", "content": {JSON: {"schema": body}}}


def explained() -> Schema:
    """An explanation in all formats."""
    return {
        "description": "the answer; pictures and arrays describe their map in headers",
        "headers": _headers(),
        "content": {form.media_type: {"schema": _EXPLAINED[form.content]} for form in FORMATS.values()},
    }


def _headers() -> Schema:
    """The headers that describe a map."""
    text: Schema = {"type": "string"}
    number: Schema = {"type": "number"}
    whole: Schema = {"type": "integer", "minimum": 0}
    named = {
        "X-Prediction-Index": whole, "X-Prediction-Label": text, "X-Prediction-Probability": number,
        "X-Prediction-Value": number, "X-Prediction-Activation": {**text, "enum": [*ACTIVATIONS]},
        "X-Explanation-Method": text, "X-Explanation-Approximates": text,
        "X-Explanation-Target-Index": whole, "X-Explanation-Target-Label": text,
        "X-Explanation-Scale": number, "X-Explanation-Samples": whole, "X-Explanation-Seed": whole,
        "X-Explanation-Resolution": whole,
        "X-Explanation-Standard-Error": number, "X-Explanation-Share-Done": number,
        "X-Explanation-Completeness-Error": number,
    }  # fmt: skip
    return {name: {"schema": kind} for name, kind in named.items()}


def json(name: str) -> Schema:
    """A request's body of JSON."""
    return {"content": {JSON: {"schema": ref(name)}}, "required": True}


def bodies(as_json: str, as_form: str) -> Schema:
    """The bodies that a picture may be sent in: as it is, or with options beside it."""
    forms: dict[str, Any] = dict.fromkeys(("multipart/form-data", "application/x-www-form-urlencoded"), ref(as_form))
    kinds: Schema = {"application/octet-stream": {}, "image/*": {}, JSON: ref(as_json), **forms}
    return {"content": {media: {"schema": kind} for media, kind in kinds.items()}, "required": True}
