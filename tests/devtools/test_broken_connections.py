"""The load tools say of a broken connection all that is known of it, so that it can be explained afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from devtools.bench import deaths, endurance
from devtools.fuzz.attack import Good

RESET = requests.ConnectionError(("Connection aborted.", ConnectionResetError(104, "Connection reset by peer")))
SAID = "ConnectionError(('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer')))"


def resets(*_: object, **__: object) -> Any:
    time.sleep(0.01)
    raise RESET


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    fake = SimpleNamespace(inference="http://127.0.0.1", pid=os.getpid(), metric=lambda *_: 0.0)

    @contextmanager
    def running() -> Iterator[SimpleNamespace]:
        yield fake

    for module in (deaths, endurance):
        monkeypatch.setattr(module, "live_server", running)
    return fake


def test_the_deaths(monkeypatch: pytest.MonkeyPatch, server: SimpleNamespace) -> None:
    monkeypatch.setattr(deaths, "_post", resets)
    monkeypatch.setattr(deaths, "_death", lambda *_: 0.0)
    monkeypatch.setattr(deaths, "time", SimpleNamespace(sleep=lambda _: time.sleep(0.01)))
    unanswered = deaths.measure(1, lambda _: None)[1].detail["unanswered"]
    assert unanswered and all(each.endswith(SAID) for each in unanswered)


def test_the_endurance(monkeypatch: pytest.MonkeyPatch, server: SimpleNamespace) -> None:
    server.worker_pids = lambda _: [os.getpid()]
    monkeypatch.setattr(endurance, "Judge", lambda *_: SimpleNamespace(learn=lambda: None, ask=resets))
    monkeypatch.setattr(endurance, "_left_over", lambda _: 0.0)
    faults = endurance.measure(0.01, lambda _: None)[0].detail["first_faults"]
    assert faults and all(each.endswith(SAID) for each in faults)


def test_the_good_request_beside_a_hostile_one(monkeypatch: pytest.MonkeyPatch) -> None:
    good = object.__new__(Good)
    monkeypatch.setattr(Good, "_post", resets)
    assert good.ask(1) == SAID
