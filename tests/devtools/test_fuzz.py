"""scripts/fuzz tells a finding from an answer that the frontend gave by itself."""

from __future__ import annotations

import json
import random

import pytest

from devtools.fuzz import bodies, pictures
from devtools.fuzz.findings import Findings
from devtools.fuzz.senders import Response


def body(code: int, kind: str, message: str) -> bytes:
    return json.dumps({"code": code, "type": kind, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (503, body(503, "InternalServerException", "Prediction failed"), ""),
        (503, body(503, "InternalServerException", "number of batch response mismatched"), ""),
        (507, body(507, "InternalServerException", "Out of resources"), ""),
        (500, body(500, "InternalServerException", "Worker died."), ""),
        (0, b"", "StatusCode.INTERNAL: Worker died."),
        (500, body(500, "InternalServerError", "the server failed on this request"), ""),
        (503, body(503, "ServiceUnavailable", "too much explanation is under way"), ""),
        (-1, b"", "no answer: ConnectionResetError"),
    ],
)
def test_a_failure_of_the_handler_or_its_worker_is_a_finding(status: int, content: bytes, said: str) -> None:
    findings = Findings()
    findings.take("raw body", Response(status, content, "asked", said))
    assert len(findings.wrong) == 1 and not findings.frontend


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (500, body(500, "ErrorDataDecoderException", "empty name"), ""),
        (403, body(403, "IllegalArgumentException", "a header value"), ""),
        (0, b"", "StatusCode.INVALID_ARGUMENT: no model"),
        (413, b"", "Request Entity Too Large"),
    ],
)
def test_what_the_frontend_answers_by_itself_is_none(status: int, content: bytes, said: str) -> None:
    findings = Findings()
    findings.take("form", Response(status, content, "asked", said))
    assert not findings.wrong and findings.statuses["form"] == {status: 1}


def test_every_hostile_picture_and_body_can_be_made() -> None:
    for seed in range(60):
        chosen = random.Random(seed)
        assert all(isinstance(make(chosen), bytes) for make in pictures.MAKERS.values())
        for content in (bodies.members(chosen), bodies.instances(chosen), bodies.tensors(chosen)):
            assert isinstance(bodies.json_body(chosen, content), bytes)
