"""The whole document: the endpoints, with their bodies and answers."""

from __future__ import annotations

from devtools.openapi.answers import schemas as answers
from devtools.openapi.asked import schemas as asked
from devtools.openapi.operations import JSON, REFUSALS, bodies, content, explained, json, operation, refusal
from devtools.openapi.options import Schema, header, headers, ref, schema
from heatserve import __version__
from heatserve.serving.options import OPTIONS

_ABOUT = """\
The endpoints of an archive of heatserve behind TorchServe. An explanation refuses an unknown or ill-typed option with
400. Members and form fields win over headers, headers over the path, the path over the archive's defaults. `Accept`
picks among the media types for a request without `output`. A TorchServe that asks for tokens answers a request without
a valid one with 400, type InvalidKeyException."""
#: The one option of a prediction.
_TOP_K = [header(OPTIONS["top_k"])]
_MODEL = ("model_name", "the model's name on this server")
_VERSION = ("model_version", "as the archive has it")


def description() -> Schema:
    """OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "heatserve",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8080", "description": "TorchServe's inference address"}],
        "security": [{"token": []}, {}],
        "paths": {**_rest(), **_kserve(), **_invocations()},
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "TorchServe's inference key"}
            },
            "parameters": {**_path_parameters(), **headers()},
            "responses": {str(status): refusal(status, ref("Error")) for status in sorted(REFUSALS)},
            "schemas": {**asked(), **answers()},
        },
    }


def _path_parameters() -> Schema:
    return {
        name: {"name": name, "in": "path", "required": True, "description": said, "schema": {"type": "string"}}
        for name, said in (_MODEL, _VERSION)
    }


def _rest() -> Schema:
    predict = operation("predict", "Predict", _TOP_K, bodies("PredictionJson", "PredictionForm"),
                         content(ref("Prediction")), without=(406,))  # fmt: skip
    explain = operation("explain", "Predict, and show the parts of the picture that count for a class", [*headers()],
                         bodies("ExplanationJson", "ExplanationForm"), explained())  # fmt: skip
    method = {"name": "method", "in": "path", "required": True, "schema": schema(OPTIONS["method"])}
    describe = operation("describe", "Describe the archive", [], None, content(ref("Description")),
                         without=(406, 413, 415))  # fmt: skip
    paths: Schema = {}
    for name, asks in (("predictions", predict), ("explanations", explain)):
        paths[f"/{name}/{{model_name}}"] = _path("post", asks)
        paths[f"/{name}/{{model_name}}/{{model_version}}"] = _path("post", _of(asks, "Version"), "model_version")
    whole = "/explanations/{model_name}/{model_version}"
    paths[whole + "/{method}"] = _path("post", _of(explain, "Method"), "model_version", method)
    paths[whole + "/describe"] = _path("get", describe, "model_version")
    return paths


def _kserve() -> Schema:
    one = operation("predictV1", "Predict for several pictures", _TOP_K, json("V1Predict"),
                     content(ref("V1Predictions")), envelopes=["V1Predictions"], without=(406,))  # fmt: skip
    two = operation("explainV1", "Explain several pictures", [*headers()], json("V1Explain"),
                     content(ref("V1Explanations")), envelopes=["V1Explanations"], without=(406,))  # fmt: skip
    infer, explain = (
        operation(name, summary, [*options], json("V2Request"), content(ref("V2Answer")), ["V2Answer"], (406,))
        for name, summary, options in (
            ("inferV2", "Predict for several pictures or views", _TOP_K),
            ("explainV2", "Explain several pictures or views", headers()),
        )
    )
    return {
        "/v1/models/{model_name}:predict": _path("post", one),
        "/v1/models/{model_name}:explain": _path("post", two),
        "/v2/models/{model_name}/infer": _path("post", infer),
        "/v2/models/{model_name}/explain": _path("post", explain),
    }


def _invocations() -> Schema:
    """The addresses of all bodies: a member of the body asks for an explanation."""
    enveloped = {"oneOf": [ref(name) for name in ("InvocationJson", "V1Invocation", "V2Invocation")]}
    sent = {"content": {**bodies("", "InvocationForm")["content"], JSON: {"schema": enveloped}}, "required": True}
    found = explained()
    envelopes = ("V1Predictions", "V1Explanations", "V2Answer")
    anything = {"anyOf": [ref(name) for name in ("Prediction", "Explanation", *envelopes)]}
    found["content"] = {**found["content"], **content(anything)["content"]}
    invoke = operation(
        "invoke", "Predict; or explain, for a body with `explain: true`", [*headers()], sent, found, envelopes
    )
    model = {"name": "model_name", "in": "query", "required": True, "schema": {"type": "string"}}
    by_query = {"post": {**_of(invoke, "ByQuery"), "parameters": [model, *invoke["parameters"]]}}
    return {"/invocations": by_query, "/models/{model_name}/invoke": _path("post", invoke)}


def _path(verb: str, asks: Schema, *more: str | Schema) -> Schema:
    parameters = [ref(each, "parameters") if isinstance(each, str) else each for each in ("model_name", *more)]
    return {"parameters": parameters, verb: asks}


def _of(asks: Schema, suffix: str) -> Schema:
    return {**asks, "operationId": asks["operationId"] + suffix}
