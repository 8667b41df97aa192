"""A device that is lost ends its worker, once everybody has been told."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from explain_handler import ExplainHandler
from heatserve.serving.report import Report
from heatserve.serving.service import Row
from heatserve.torchserve import ending, modes
from tests.serving.small import picture, small_service
from tests.serving.test_continuous import Frontend
from tests.serving.test_handler import EXPLAIN, PREDICT, ask, handler

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported elsewhere"
SENTENCE = "the server's accelerator failed; its worker starts again: ask once more in a moment"


class Deadline:
    """In the place of a timer that would end this process."""

    started: list[tuple[float, Callable[..., Any]]]

    def __init__(self, seconds: float, action: Callable[..., Any], arguments: tuple[int, ...]) -> None:
        self._what = (seconds, action)

    def start(self) -> None:
        self.started.append(self._what)


@pytest.fixture(autouse=True)
def deadlines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    Deadline.started = []
    monkeypatch.setattr(ending.threading, "Timer", Deadline)
    monkeypatch.setattr(modes, "only_worker", lambda name, version: None)
    return Deadline.started


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a worker's connection."""
    frontend, worker = socket.socketpair()
    for end in (frontend, worker):
        end.settimeout(5)
    with frontend, worker:
        yield frontend, worker


def broken(made: ExplainHandler, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(text)

    monkeypatch.setattr(made.model, "forward", fails)


def test_every_row_in_hand_is_told_and_the_worker_reads_no_further(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: tuple[socket.socket, socket.socket],
    deadlines: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    frontend = Frontend(tmp_path)
    frontend.service.set_cl_socket(ends[1])
    frontend.send("smooth", picture(), method="smoothgrad", samples=200)
    frontend.send("lines", picture(seed=1), method="smoothgrad", samples=200, stream=True)
    while "lines" not in frontend.parts:
        assert not frontend.step()
    frontend.send("predicted", picture(seed=2), "predictions")
    frontend.send("no picture", b"nothing", "predictions")
    broken(frontend.handler, ILLEGAL, monkeypatch)
    with caplog.at_level(logging.ERROR):
        answers = frontend.step()
    # One call, whatever was new, under way or refused already. On a slow machine a row may not have been looked at yet.
    assert answers.keys() == {"smooth", "lines", "predicted", "no picture"} and not frontend.rows
    assert answers["smooth"]["status"] == answers["predicted"]["status"] == 500
    assert answers["no picture"]["status"] in (415, 500)
    assert all(SENTENCE.encode() in answers[name]["body"] for name in ("smooth", "lines"))
    # The answer can still be sent; what the worker would read next is the end.
    ends[1].sendall(b"answer")
    assert ends[0].recv(10) == b"answer" and ends[1].recv(10) == b""
    assert [seconds for seconds, _ in deadlines] == [ending.GRACE]
    assert "the device is lost: CUDA error: an illegal memory access was encountered" in caplog.text
    assert "this worker ends" in caplog.text


def test_in_the_ordinary_mode_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadlines: list[Any]) -> None:
    made = handler(tmp_path)
    broken(made[0], ILLEGAL, monkeypatch)
    rows = [({"body": bytearray(picture())}, PREDICT), ({"body": bytearray(picture())}, EXPLAIN)]
    answers = ask(made, *rows)
    assert [(status, content["message"]) for status, content, _ in answers] == [(500, SENTENCE)] * 2
    assert len(deadlines) == 1


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "CUDA error: invalid argument", "shapes do not fit"])
def test_any_other_fault_leaves_the_worker_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadlines: list[Any], text: str
) -> None:
    made = handler(tmp_path)
    with monkeypatch.context() as patch:
        broken(made[0], text, patch)
        assert ask(made, ({"body": bytearray(picture())}, EXPLAIN))[0][0] in (500, 507)
    assert ask(made, ({"body": bytearray(picture())}, EXPLAIN))[0][0] == 200
    assert not deadlines


def test_a_device_that_is_lost_while_an_answer_is_rendered_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> dict[str, Any]:
        raise RuntimeError(ILLEGAL)

    service = small_service(tmp_path, {"continuousBatching": True})
    monkeypatch.setattr(Report, "prediction", fails)
    headers = {"Content-Length": "1", "explain": "False"}
    reply = service.call([Row("p", {"body": picture()}, headers)])
    assert reply.lost and reply.answers["p"].status == 500 and not reply.left
