"""The suite of both modes, with endpoints that answer after a known time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from devtools.bench import live
from devtools.bench.endpoint import EXPLANATIONS, PREDICTIONS


class _Sleeper:
    """Answers after so many seconds, and counts its requests and those that it had at one time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.lock = seconds, threading.Lock()
        self.asked, self.now, self.most = Counter[str](), 0, 0

    def ask(self, api: str, options: Mapping[str, str] | None = None) -> None:
        with self.lock:
            self.asked[f"{api} {dict(options or {})}"] += 1
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1


def test_the_modes_are_asked_alike_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    sleepers = {live.ORDINARY: _Sleeper(0.1), live.LIVE: _Sleeper(0.01)}

    @contextmanager
    def both() -> Iterator[dict[str, _Sleeper]]:
        yield sleepers

    monkeypatch.setattr(live, "both", both)
    monkeypatch.setattr(live, "PAUSE", 0.0)
    monkeypatch.setattr(live, "UNDER_WAY", 0.01)
    shares: list[float] = []
    found = {result.what: result for result in live.measure(live.Effort(1, 0.05, (1, 4)), shares.append)}
    assert shares == sorted(shares) and shares[-1] == 1
    for name in (
        "a prediction beside 4 SmoothGrad clients: p95 against quiet (continuous)",
        "a Grad-CAM beside 4 SmoothGrad clients: p95 against quiet (ordinary)",
        "one SmoothGrad beside 8 clients that saturate predictions: against alone (continuous)",
    ):
        assert found[name].value > 0
    for name in (
        "predictions a second, 8 clients and no explanations: continuous against ordinary",
        "samples a second, 1 SmoothGrad client: continuous against ordinary",
        "samples a second, 4 SmoothGrad clients: continuous against ordinary",
    ):
        assert found[name].value > 1.5
    for sleeper in sleepers.values():
        assert sleeper.asked.keys() == {
            f"{PREDICTIONS} {{}}",
            f"{EXPLANATIONS} {{}}",
            f"{EXPLANATIONS} {live.SMOOTHGRAD}",
        }
        assert sleeper.most == 9
