"""Every endpoint that docs/openapi.yaml describes is there, and answers as it says."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
import requests

from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server
from tests.devtools.test_openapi import DOCUMENT, check, response

pytestmark = pytest.mark.server
DATA = base64.b64encode(photographs()["chelsea"]).decode()
BODIES: dict[str, dict[str, Any]] = {
    "v1": {"instances": [{"data": DATA}]},
    "v2": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [DATA]}]},
    "": {"data": DATA},
}


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_an_endpoint_answers_as_described(server: Server, path: str) -> None:
    verb = "get" if "get" in DOCUMENT["paths"][path] else "post"
    named = {"model_name": "lite0", "model_version": "1.0", "method": "cam"}
    address = re.sub(r"{(\w+)}", lambda found: named[found[1]], path)
    query = {"model_name": "lite0"} if path == "/invocations" else {}
    body = next(body for start, body in BODIES.items() if path.startswith(f"/{start}"))
    answer = requests.request(verb, server.inference + address, params=query, json=body, timeout=120)
    assert answer.status_code == 200, answer.text[:300]
    # TorchServe names no type for what it turns into JSON by itself.
    media = answer.headers.get("content-type", "application/json")
    check(answer.json(), response(path, 200, verb)["content"][media]["schema"])


def test_a_model_that_is_not_there_is_told_as_described(server: Server) -> None:
    answer = requests.post(f"{server.inference}/explanations/nobody", data=b"x", timeout=60)
    assert answer.status_code == 404
    described = response("/explanations/{model_name}", 404)
    assert answer.json()["type"] in described["description"]
    check(answer.json(), described["content"]["application/json"]["schema"])
