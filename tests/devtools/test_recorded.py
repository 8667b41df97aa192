"""The recorder of answers: two recordings of the same code are equal, and a changed answer is seen and told."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devtools.paths import HANDLERS, ROOT
from devtools.recorded import cases
from devtools.recorded.differences import between, report
from devtools.recorded.recording import written


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devtools.recorded", *map(str, arguments)]
    environment = {"PYTHONPATH": f"{HANDLERS}:{ROOT}", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)


def answered(content: bytes, **more: Any) -> dict[str, Any]:
    return written({"status": 200, "headers": {}, "body": content, **more})


def npy(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values, np.float32))
    return stream.getvalue()


def png(level: int) -> str:
    stream = io.BytesIO()
    Image.new("L", (40, 30), level).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_two_recordings_in_two_processes_are_equal_and_a_change_is_told(tmp_path: Path) -> None:
    file = tmp_path / "before.json"
    made = run("record", file, "--only", "continuous-ticking/*deadline*")
    assert made.returncode == 0, made.stderr
    again = run("compare", file, "--only", "continuous-ticking/*deadline*")
    assert again.returncode == 0, again.stdout + again.stderr
    content = json.loads(file.read_text())
    number = len(content["cases"])
    assert number >= 6 and f"{number} of {number} cases are equal" in again.stdout
    name, case = next(iter(content["cases"].items()))
    case["answers"]["row"]["status"] = 418
    file.write_text(json.dumps(content))
    changed = run("compare", file, "--only", name)
    assert changed.returncode == 1 and "answers.row.status: 418 -> 200" in changed.stdout


def test_cases_have_names_of_their_own_and_ask_for_every_protocol_mode_and_error() -> None:
    names = [case.name for case in cases.every()]
    assert len(names) > 1000
    for family in (
        "v1/",
        "v2/",
        "grpc/",
        "invocations/",
        "streams/",
        "continuous-ticking/",
        "fault/",
        "limit/",
        "start/",
    ):
        assert any(name.startswith(family) for name in names), family


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (answered(b'{"a": [1, 2]}'), answered(b'{"a": [1, 3]}'), ["body{}.a[1]: 2 -> 3"]),
        (answered(b'{"a": 1}'), answered(b'{"a":1}'), ["written differently"]),
        (answered(npy([1, 2])), answered(npy([1, 2.5])), ["differ by 0.25 of the largest value"]),
        (answered(json.dumps({"data": png(9)}).encode()), answered(json.dumps({"data": png(12)}).encode()),
         ["1200 of 1200 pixels differ, by at most 3 of 255"]),
        (answered(b"x", status=404), answered(b"x"), ["status: 404 -> 200"]),
        (answered(b'{"versions": {"torch": "1"}}'), answered(b'{"versions": {"torch": "2"}}'), []),
        ({"metrics": ["a", "b"]}, {"metrics": ["a"]}, ["metrics"]),
    ],
)  # fmt: skip
def test_a_difference_is_a_line_that_says_where_and_how_much(old: Any, new: Any, told: list[str]) -> None:
    lines = [*between(old, new)]
    assert len(lines) == len(told)
    assert all(words in line for words, line in zip(told, lines)), lines


@pytest.mark.parametrize(
    ("old", "new", "equal"),
    [
        (answered(npy([1, 2])), answered(npy([1, 2.00001])), True),
        (answered(npy([1, 2])), answered(npy([1, 2.001])), False),
        (answered(json.dumps({"data": png(9)}).encode()), answered(json.dumps({"data": png(10)}).encode()), True),
        (answered(json.dumps({"data": png(9)}).encode()), answered(json.dumps({"data": png(11)}).encode()), False),
        (answered(b'{"timing_ms": {"decode": 1}}'), answered(b'{"timing_ms": {"decode": 2}}'), True),
        (answered(b'{"p": 0.5}'), answered(b'{"p": 0.500001}'), True),
        (answered(b'{"label": "cat"}'), answered(b'{"label": "dog"}'), False),
    ],
)
def test_answers_of_servers_are_equal_within_rounding(old: Any, new: Any, equal: bool) -> None:
    assert (report({"a": old}, {"a": new}, "*", 5, 1e-5) == 0) is equal
    assert report({"a": old}, {"a": new}, "*", 5) == 1
