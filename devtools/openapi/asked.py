"""The schemas of requests: a picture with its options, and KServe's envelopes of several."""

from __future__ import annotations

from collections.abc import Mapping

from devtools.openapi.answers import BASE64, TEXT, a_list, exactly
from devtools.openapi.options import Schema, options, ref, schema
from heatserve.serving.options import OPTIONS
from heatserve.serving.protocols import MOST
from heatserve.serving.protocols.kserve_v2 import OUTPUT_TENSORS

_EXPLAIN: Schema = {"explain": {"type": "boolean", "default": False}}
_PICTURE: Schema = {"data": ref("Encoded")}
_FORM: Schema = {"data": {"type": "string", "description": "the picture itself, or base64"}}


def schemas() -> dict[str, Schema]:
    """The components of kind `schemas` that requests are made of."""
    asked = {"instances": a_list({"oneOf": [_lenient(_PICTURE), *_bare()]}, 1, MOST)}
    explained = {"instances": a_list({"oneOf": [_with_options(_PICTURE), *_bare()]}, 1, MOST)}
    inputs = {"inputs": a_list(ref("V2Input"), 1, MOST)}
    beside = {
        "id": {"type": "string", "maxLength": 500},
        "parameters": ref("V2Parameters"),
        "outputs": a_list(exactly({"name": {"enum": [*OUTPUT_TENSORS]}}, {"parameters": {"type": "object"}}), 0),
    }
    return {
        "Options": {"type": "object", "properties": options()},
        "Encoded": {
            "description": "a picture as base64, with data:image/…;base64, before it or not",
            "anyOf": [BASE64, exactly({"b64": BASE64})],
        },
        "PredictionJson": _lenient(_PICTURE),
        "PredictionForm": _lenient(_FORM),
        "ExplanationJson": _with_options(_PICTURE),
        "ExplanationForm": _with_options(_FORM),
        "InvocationJson": _with_options(_PICTURE, _EXPLAIN),
        "InvocationForm": _with_options(_FORM, _EXPLAIN),
        "V1Predict": _lenient(asked),
        "V1Explain": _with_options(explained),
        "V1Invocation": _with_options(explained, _EXPLAIN),
        "V2Request": exactly(inputs, beside),
        "V2Invocation": exactly(inputs, {**_EXPLAIN, **beside}),
        "V2Input": _input(),
        "V2Parameters": {**ref("Options"), "description": "the options; parameters of the protocol's own are ignored"},
    }


def _with_options(members: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object of these members, the options, and no others."""
    return {
        **ref("Options"),
        "required": [*members],
        "properties": {**members, **(optional or {})},
        "unevaluatedProperties": False,
    }


def _lenient(members: Mapping[str, Schema]) -> Schema:
    """Predictions know one option and ignore the others."""
    top_k = {"top_k": schema(OPTIONS["top_k"])}
    return {"type": "object", "required": [*members], "properties": {**members, **top_k}}


def _bare() -> list[Schema]:
    """An instance that is a picture alone."""
    return [TEXT, exactly({"b64": BASE64})]


def _input() -> Schema:
    return exactly(
        {
            "name": TEXT,
            "datatype": {"enum": ["BYTES", "FP32"]},
            "shape": a_list({"type": "integer", "minimum": 1}, 1, 4),
            "data": {"type": "array", "minItems": 1},
        },
        {"parameters": ref("V2Parameters")},
        "BYTES: base64 pictures; FP32: the model's normalised view, (C, H, W) or (N, C, H, W)",
    )
