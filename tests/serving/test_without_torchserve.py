"""The core needs no TorchServe: a process in which `ts` cannot be imported serves an archive in both modes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from devtools.paths import ROOT
from tests.serving.small import LABELS, Small, picture
from tests.serving.test_handler import view

HOST = '''
"""A host: it brings rows, repeats the call, and sends what is ready."""

import importlib, json, pkgutil, sys, tempfile
from pathlib import Path

sys.modules["ts"] = None  # an import of it fails

import heatserve.serving, heatserve.torchserve
from heatserve.serving.service import CONTRACT, Row
from tests.serving.small import picture, small_service

for package in (heatserve.serving, heatserve.torchserve):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


def row(name, seed, explain, **options):
    headers = {f"X-Explain-{key}": str(value) for key, value in options.items()}
    return Row(name, {"body": picture(seed=seed)}, {"Content-Length": "1", "explain": str(explain), **headers})


arriving = [
    [row("live", 0, True, method="smoothgrad", samples=40, stream="true"), row("predicted", 1, False)],
    [row("explained", 2, True, method="gradcam", target=3)],
    [row("gone", 3, True, method="smoothgrad", samples=200), Row("broken", {"body": b"text"}, {"Content-Length": "1"})],
]
with tempfile.TemporaryDirectory() as folder:
    service = small_service(Path(folder), {"continuousBatching": sys.argv[1] == "continuous"})
    waiting, sent, calls, given_up = {}, {}, 0, 0
    while arriving or waiting:
        for new in arriving.pop(0) if arriving else ():
            waiting[new.id] = new
        reply = service.call([*waiting.values()])
        calls, given_up = calls + 1, given_up + reply.facts.given_up
        for name, answer in reply.answers.items():
            body = answer.body if isinstance(answer.body, dict) else json.loads(answer.body)
            sent.setdefault(name, []).append([calls, answer.status, answer.more, body])
        waiting = {one.id: one for one in reply.unanswered([*waiting.values()])}
        waiting.pop("gone", None)
        assert bool(reply.left) or not waiting
given_up += service.call([]).facts.given_up
print(json.dumps({"sent": sent, "given_up": given_up, "contract": CONTRACT, "ts": sys.modules["ts"] is not None}))
'''


@pytest.fixture(scope="module", params=["ordinary", "continuous"])
def told(request: pytest.FixtureRequest) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "handlers"), str(ROOT)])}
    command = [sys.executable, "-c", HOST, request.param]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_row_gets_its_answer(told: dict[str, Any]) -> None:
    assert told["contract"] == 1 and told["ts"] is False and told["given_up"] == 1
    last = {name: answers[-1] for name, answers in told["sent"].items()}
    assert {name: status for name, (_, status, _, _) in last.items()} == {
        "live": 200, "predicted": 200, "explained": 200, "broken": 415,
    }  # fmt: skip


def test_a_prediction_is_the_networks(told: dict[str, Any]) -> None:
    ((call, _, more, body),) = told["sent"]["predicted"]
    with torch.no_grad():
        probabilities, classes = Small().eval()(view(picture(seed=1))).softmax(1)[0].topk(5)
    expected = {LABELS[index]: value for index, value in zip(classes.tolist(), probabilities.tolist())}
    assert body == pytest.approx(expected, abs=1e-6) and call <= 2 and more is None


def test_a_stream_has_lines_and_an_end(told: dict[str, Any]) -> None:
    lines = told["sent"]["live"]
    used = [body["explanations"][0]["quality"]["samples_used"] for *_, body in lines]
    assert used == sorted(set(used)) and used[-1] == 40 and len(lines) > 1
    assert [more for _, _, more, _ in lines] == [True] * (len(lines) - 1) + [False]


def test_an_explanation_that_came_later_does_not_wait_for_a_longer_one(told: dict[str, Any]) -> None:
    ((call, _, _, body),) = told["sent"]["explained"]
    assert body["explanations"][0]["target"]["index"] == 3 and call < told["sent"]["live"][-1][0]
