"""docs/openapi.yaml is written from the code, is valid, and agrees with the handler on requests and answers."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from openapi_spec_validator import OpenAPIV31SpecValidator
from ts.context import Context

from devtools.openapi.__main__ import OPENAPI, text
from devtools.openapi.options import schema
from explain_handler import ExplainHandler
from heatserve.serving.errors import STATUSES, Refusal
from heatserve.serving.formats import FORMATS, OUTPUTS
from heatserve.serving.options import OPTIONS
from heatserve.serving.vocabulary import Vocabulary, parse
from tests.serving.small import picture
from tests.serving.test_handler import EXPLAIN, PREDICT, ask, handler, view

DOCUMENT: dict[str, Any] = yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))
INVOKE = {"Content-Length": "1"}
DATA = base64.b64encode(picture()).decode()
NONE = base64.b64encode(b"none").decode()
V2 = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [DATA]}
VIEW = {"name": "view", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": view(picture()).flatten().tolist()}
Made = tuple[ExplainHandler, Context]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return handler(tmp_path_factory.mktemp("archive"), {"explain": {"max_samples": 20, "max_batch_work": 80}})


def check(value: Any, against: dict[str, Any]) -> None:
    """Raises ValidationError."""
    Draft202012Validator({**against, "components": DOCUMENT["components"]}).validate(value)


def response(path: str, status: int, verb: str = "post") -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][verb]["responses"][str(status)]
    named = DOCUMENT["components"]["responses"]
    return found if "content" in found else dict(named[found["$ref"].rsplit("/", 1)[-1]])


def asked(path: str, media: str = FORMATS["json"].media_type) -> dict[str, Any]:
    return dict(DOCUMENT["paths"][path]["post"]["requestBody"]["content"][media]["schema"])


def test_the_file_is_the_codes() -> None:
    assert OPENAPI.read_text(encoding="utf-8") == text(), "python -m devtools.openapi writes it anew"


def test_it_is_a_valid_description() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()
             if isinstance(operation, dict)]  # fmt: skip
    assert len(names) == len(set(names)) == 12


def test_every_status_and_media_type_of_the_handler_is_in_it() -> None:
    explained = DOCUMENT["paths"]["/explanations/{model_name}"]["post"]["responses"]
    assert explained.keys() == {"200", "404", *map(str, STATUSES)}
    assert explained["200"]["content"].keys() == {form.media_type for form in FORMATS.values()}


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.none() | st.booleans() | NUMBERS | st.text(max_size=9) | st.lists(NUMBERS)
#: Kinds of options whose values an archive has names for.
OF_THE_ARCHIVE = ("contrast", "target", "layer")


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.kind not in OF_THE_ARCHIVE])
@given(data=st.data())
def test_what_it_allows_of_an_option_is_what_the_parser_allows(name: str, data: st.DataObject) -> None:
    option = OPTIONS[name]
    edges = [each for low in (option.low, option.high) if math.isfinite(low) for each in (low - 1, low, low + 1)]
    value = data.draw(VALUES | st.sampled_from([*option.choices, *edges, 0.0, 1.0, 2**53]))
    allowed = Draft202012Validator(schema(option)).is_valid(value)
    try:
        parse(name, value, Vocabulary(6))
    except Refusal:
        assert not allowed or (isinstance(value, str) and value != value.strip())
    else:
        # The parser takes a value's text too.
        assert allowed or isinstance(value, str)


ANSWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "prediction": ("/predictions/{model_name}", {"data": DATA, "top_k": 3}, PREDICT, 200),
    "prediction refused": ("/predictions/{model_name}", {"data": NONE}, PREDICT, 415),
    "explanation": ("/explanations/{model_name}", {"data": DATA}, EXPLAIN, 200),
    "everything": (
        "/explanations/{model_name}",
        {"data": DATA, "overlay": True, "boxes": True, "target": "top3", "samples": 3, "contrast": 1, "top_k": 2},
        EXPLAIN,
        200,
    ),
    "of the input": (
        "/explanations/{model_name}/{model_version}/{method}",
        {"data": DATA, "method": "gradient"},
        EXPLAIN,
        200,
    ),
    "no base64": ("/explanations/{model_name}", {"data": "!"}, EXPLAIN, 400),
    "no picture": ("/explanations/{model_name}", {"data": NONE}, EXPLAIN, 415),
    "too many": ("/explanations/{model_name}", {"data": DATA, "samples": 21}, EXPLAIN, 413),
    "no such type": ("/explanations/{model_name}", {"data": DATA}, {**EXPLAIN, "Accept": "text/html"}, 406),
    "v1 predict": (
        "/v1/models/{model_name}:predict",
        {"instances": [DATA, {"data": DATA}, {"b64": DATA}, "!"]},
        PREDICT,
        200,
    ),
    "v1 explain": (
        "/v1/models/{model_name}:explain",
        {"instances": [{"data": DATA, "target": "top2", "overlay": True}, "!"], "method": "cam"},
        EXPLAIN,
        200,
    ),
    "v1 refused": ("/v1/models/{model_name}:explain", {"instances": ["!"]}, EXPLAIN, 400),
    "v1 all refused": ("/v1/models/{model_name}:explain", {"instances": ["!", "!"]}, EXPLAIN, 400),
    "v2 infer": ("/v2/models/{model_name}/infer", {"id": "1", "inputs": [V2, VIEW]}, PREDICT, 200),
    "v2 explain": (
        "/v2/models/{model_name}/explain",
        {"inputs": [V2, {**VIEW, "parameters": {"target": 2}}], "parameters": {"overlay": True, "boxes": True}},
        EXPLAIN,
        200,
    ),
    "v2 pictures": (
        "/v2/models/{model_name}/explain",
        {"inputs": [V2], "parameters": {"output": "webp"}},
        EXPLAIN,
        200,
    ),
    "v2 some": ("/v2/models/{model_name}/explain", {"inputs": [V2], "outputs": [{"name": "heatmap"}]}, EXPLAIN, 200),
    "v2 refused": ("/v2/models/{model_name}/explain", {"inputs": [{**V2, "data": ["!"]}]}, EXPLAIN, 400),
    "v2 all refused": ("/v2/models/{model_name}/explain", {"inputs": [{**V2, "data": ["!"]}] * 2}, EXPLAIN, 400),
    "invocation": ("/invocations", {"data": DATA}, INVOKE, 200),
    "invocation explained": ("/invocations", {"data": DATA, "explain": True}, INVOKE, 200),
    "invocation of v1": ("/models/{model_name}/invoke", {"instances": [DATA], "explain": True}, INVOKE, 200),
    "invocation of v2": ("/models/{model_name}/invoke", {"inputs": [V2], "explain": True}, INVOKE, 200),
    "invocation refused": ("/invocations", {"instances": ["!", "!"]}, INVOKE, 400),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_requests_and_answers_are_as_described(small: Made, name: str) -> None:
    path, sent, headers, expected = ANSWERS[name]
    check(sent, asked(path))
    ((status, answer, given_headers),) = ask(small, ({"body": sent}, headers))
    assert status == expected
    described = response(path, status)
    check(answer, described["content"][given_headers.get("content-type", FORMATS["json"].media_type)]["schema"])
    if path.startswith("/v2") and status == 200:
        about = [json.loads(each) for output in answer["outputs"] if output["name"] == "prediction"
                 for each in output["data"]]  # fmt: skip
        kinds = ("Prediction", "V2About", "KServeError")
        for each in about:
            check(each, {"anyOf": [{"$ref": f"#/components/schemas/{kind}"} for kind in kinds]})


def test_work_that_is_refused_says_when_to_come_again(small: Made) -> None:
    row = ({"body": {"data": DATA, "method": "smoothgrad", "samples": 20}}, EXPLAIN)
    status, answer, headers = ask(small, row, row)[1]
    described = response("/explanations/{model_name}", status)
    check(answer, described["content"][headers["content-type"]]["schema"])
    check(int(headers["Retry-After"]), described["headers"]["Retry-After"]["schema"])


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name != "json"])
def test_a_picture_has_the_headers_that_are_described(small: Made, output: str) -> None:
    ((status, _, headers),) = ask(small, ({"body": {"data": DATA, "output": output, "samples": 3}}, EXPLAIN))
    described = response("/explanations/{model_name}", status)
    assert headers["content-type"] == FORMATS[output].media_type in described["content"]
    said = {name: value for name, value in headers.items() if name.startswith("X-")}
    of_others = {
        "X-Prediction-Value",
        "X-Explanation-Approximates",
        "X-Explanation-Resolution",
        "X-Explanation-Share-Done",
        "X-Explanation-Completeness-Error",
    }
    assert said.keys() == described["headers"].keys() - of_others
    for name, value in said.items():
        kind = described["headers"][name]["schema"]
        check(value if kind["type"] == "string" else float(value), kind)


def test_the_lines_of_a_stream_are_explanations(small: Made) -> None:
    ((_, content, headers),) = ask(small, ({"body": {"data": DATA, "stream": True}}, EXPLAIN))
    assert headers["content-type"] == FORMATS["ndjson"].media_type
    check(json.loads(content), {"$ref": "#/components/schemas/Explanation"})


def test_what_the_archive_can_be_asked_for_is_described(small: Made) -> None:
    ((status, answer, _),) = ask(small, ({}, {**EXPLAIN, "url_path": "describe"}))
    path = "/explanations/{model_name}/{model_version}/describe"
    check(answer, response(path, status, "get")["content"][FORMATS["json"].media_type]["schema"])


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/explanations/{model_name}", {"data": DATA, "lime": 1}),
        ("/explanations/{model_name}", {"data": DATA, "samples": 0}),
        ("/explanations/{model_name}", {"method": "cam"}),
        ("/v1/models/{model_name}:explain", {"instances": []}),
        ("/v1/models/{model_name}:explain", {"instances": [DATA] * 65}),
        ("/v1/models/{model_name}:explain", {"instances": [{"data": DATA, "output": "gif"}]}),
        ("/v2/models/{model_name}/explain", {"inputs": [{**V2, "datatype": "INT8"}]}),
        ("/v2/models/{model_name}/explain", {"inputs": [V2], "outputs": [{"name": "x"}]}),
        ("/v2/models/{model_name}/explain", {"inputs": [V2], "parameters": {"opacity": 2}}),
    ],
)
def test_what_the_handler_refuses_is_not_described(small: Made, path: str, sent: dict[str, Any]) -> None:
    ((status, *_),) = ask(small, ({"body": sent}, EXPLAIN))
    assert status in (400, 413)
    with pytest.raises(ValidationError):
        check(sent, asked(path))


def test_an_answer_with_a_member_more_or_less_is_not_described(small: Made) -> None:
    ((_, answer, _),) = ask(small, ({"body": {"data": DATA}}, EXPLAIN))
    described = response("/explanations/{model_name}", 200)["content"][FORMATS["json"].media_type]["schema"]
    check(answer, described)
    for name in answer:
        with pytest.raises(ValidationError):
            check({key: value for key, value in answer.items() if key != name}, described)
    answer["explanations"][0]["quality"]["new"] = 1
    with pytest.raises(ValidationError):
        check(answer, described)
