"""A fault between two steps of the ordinary mode: rows that are answered keep their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ts.context import Context, RequestProcessor

import explain_handler
from explain_handler import ExplainHandler
from tests.serving.small import picture
from tests.serving.test_handler import EXPLAIN, PREDICT, ask, handler, small  # noqa: F401

LIVE = {**EXPLAIN, "X-Explain-Method": "smoothgrad", "X-Explain-Samples": "40", "X-Explain-Stream": "true"}
LONG = {**EXPLAIN, "X-Explain-Method": "smoothgrad", "X-Explain-Samples": "120"}


def row(seed: int) -> dict[str, Any]:
    return {"body": bytearray(picture(seed=seed))}


def test_a_line_that_cannot_be_sent_refuses_the_rows_that_wait_and_no_others(
    small: tuple[ExplainHandler, Context],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("the socket is gone")

    with monkeypatch.context() as patch:
        patch.setattr(explain_handler, "send_intermediate_predict_response", fails)
        answers = ask(small, (row(0), PREDICT), (row(1), LIVE), (row(2), LONG))
    assert [status for status, _, _ in answers] == [200, 500, 500]
    assert set(answers[0][1]) == set(ask(small, (row(0), PREDICT))[0][1])


def test_a_stream_that_ended_before_the_fault_keeps_its_end(
    small: tuple[ExplainHandler, Context],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, context = small
    lines: list[Any] = []

    def fails_once_the_shorter_stream_is_over(bodies: Any, ids: Any, *_: Any) -> None:
        if "short" not in ids.values() and "short" in {name for name, _ in lines}:
            raise OSError("the socket is gone")
        lines.extend((name, bodies[index]) for index, name in ids.items())

    monkeypatch.setattr(explain_handler, "send_intermediate_predict_response", fails_once_the_shorter_stream_is_over)
    context.request_ids = {0: "short", 1: "long"}
    headers = [{**LIVE, "X-Explain-Samples": samples} for samples in ("8", "200")]
    context.request_processor = [RequestProcessor(each) for each in headers]
    context.metrics.request_ids = context.request_ids
    short, long = made.handle([row(0), row(1)], context)
    assert [context.get_response_status(index)[0] for index in (0, 1)] == [200, 500]
    assert json.loads(short)["explanations"][0]["quality"]["samples_used"] == 8 and "message" in json.loads(long)
    assert [context.stopping_criteria[index](None) for index in (0, 1)] == [True, True]
