"""Hostile pictures and bodies in process: each is its own row's fault, and the row beside it never notices."""

from __future__ import annotations

import base64
import io
import json
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ts.context import Context

from devtools.fuzz import bodies, pictures
from explain_handler import ExplainHandler
from tests.serving.small import picture
from tests.serving.test_handler import EXPLAIN, PREDICT, ask, body, handler

Made = tuple[ExplainHandler, Context]
INVOKE = {"Content-Length": "1"}
GOOD = (body(picture(seed=9), output="npy"), EXPLAIN)
IMAGE = base64.b64encode(picture()).decode()
TENSOR = {"name": "a", "datatype": "BYTES", "shape": [1], "data": [IMAGE]}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return handler(tmp_path_factory.mktemp("archive"), {"explain": {"max_image_bytes": 4_000_000}})


@pytest.fixture(scope="module")
def quiet(small: Made) -> np.ndarray:
    return np.load(io.BytesIO(ask(small, GOOD)[0][1]))


def statuses(small: Made, quiet: np.ndarray, *rows: tuple[Any, dict[str, Any]]) -> list[int]:
    """What hostile rows are told, in a batch whose last row is a good one that gets its right answer."""
    *answers, (status, content, _) = ask(small, *rows, GOOD)
    assert status == 200 and np.allclose(np.load(io.BytesIO(content)), quiet, atol=1e-5 * quiet.max())
    for code, answer, headers in answers:
        assert code == 200 or ({"code", "type", "message"} <= answer.keys() and answer["code"] == code)
        assert all(value.isascii() and value.isprintable() for value in headers.values())
    return [code for code, *_ in answers]


@pytest.mark.parametrize("form", pictures.FORMS)
def test_a_picture_cut_at_any_64th_byte_is_shown_or_told_to_be_none(small: Made, quiet: np.ndarray, form: str) -> None:
    whole = pictures.plain(form)
    cuts = [({"body": bytearray(whole[:length])}, EXPLAIN) for length in range(64, len(whole), 64)]
    found = [code for at in range(0, len(cuts), 32) for code in statuses(small, quiet, *cuts[at : at + 32])]
    assert set(found) <= {200, 415} and found.count(415) > len(found) / 2


@pytest.mark.parametrize("kind", pictures.MAKERS)
def test_odd_pictures_are_shown_or_refused_each_for_itself(small: Made, quiet: np.ndarray, kind: str) -> None:
    made = [pictures.MAKERS[kind](random.Random(seed)) for seed in range(24 if kind != "noise" else 4)]
    found = statuses(small, quiet, *(({"body": bytearray(image)}, EXPLAIN) for image in made))
    assert set(found) <= {200, 400, 413, 415}
    always = {"oriented": {200}, "profiled": {200}, "odd_mode": {200}, "animated": {200}, "bomb": {413, 415}}
    assert set(found) <= always.get(kind, {200, 400, 413, 415})
    if kind == "no_picture":
        assert 200 not in found


def every_place(value: Any) -> list[Any]:
    """Bodies with a value where a client may put one."""
    return [
        *({"data": IMAGE, name: value} for name in ("method", "target", "samples", "boxes", "explain", "nothing")),
        {"data": value},
        {"data": {"b64": value}},
        {"instances": value},
        {"instances": [value]},
        {"instances": [{"data": IMAGE, "target": value}]},
        {"inputs": value},
        {"inputs": [value]},
        *({"inputs": [{**TENSOR, name: value}]} for name in ("datatype", "shape", "data", "parameters")),
        {"inputs": [{**TENSOR, "datatype": "FP32", "shape": [3, 32, 32], "data": value}]},
        *({"inputs": [TENSOR], name: value} for name in ("id", "parameters", "outputs")),
        {"inputs": [TENSOR], "outputs": [{"name": value}]},
    ]


def nested(opening: str, closing: str) -> Any:
    """As deep as the JSON parser goes here."""
    for depth in range(sys.getrecursionlimit(), 0, -1):
        try:
            return json.loads(opening * depth + "1" + closing * depth)
        except RecursionError:
            continue
    raise AssertionError


VALUES: dict[str, Callable[[], Any]] = {
    "deep list": lambda: nested("[", "]"),
    "deep object": lambda: nested('{"a":', "}"),
    "long list": lambda: [0] * 100_000,
    "large object": lambda: {str(index): index for index in range(20_000)},
    "long text": lambda: "x" * 1_000_000,
    "many digits": lambda: 10**4_000,
    "large": lambda: 1e308,
    "minus zero": lambda: -0.0,
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "surrogate": lambda: "\ud800",
    "surrogates": lambda: "\ud800" * 200,
    "surrogate name": lambda: {"\udfff": "\ud800"},
    "nul": lambda: "\0",
    "header": lambda: "cat\r\nSet-Cookie: a=b",
    "log line": lambda: bodies.FORGED,
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("headers", [PREDICT, EXPLAIN, INVOKE], ids=["predict", "explain", "invoke"])
def test_an_odd_value_in_any_place_is_that_rows_own_fault(
    small: Made, quiet: np.ndarray, kind: str, headers: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        found = statuses(small, quiet, *(({"body": sent}, headers) for sent in every_place(VALUES[kind]())))
    assert set(found) <= {200, 400, 413, 415}
    assert "forged" not in caplog.text and "Set-Cookie" not in caplog.text


def test_a_row_that_no_protocol_can_read_is_its_own_fault_too(
    small: Made, quiet: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RecursionError

    monkeypatch.setattr("heatserve.serving.protocols.KServeV2", broken)
    assert statuses(small, quiet, ({"body": {"inputs": []}}, EXPLAIN), ({"body": picture()}, PREDICT)) == [500, 200]


def test_names_that_are_no_names_are_refused_in_one_line(small: Made, quiet: np.ndarray) -> None:
    rows = [({"body": {"data": IMAGE, name: 1}}, EXPLAIN) for name in ("\ud800", "a\r\nb", "x" * 10_000, "", "é|#")]
    assert statuses(small, quiet, *rows) == [400] * 5


def test_of_a_member_that_is_given_twice_the_last_one_counts(small: Made) -> None:
    sent = json.loads(f'{{"data": "!", "target": 2, "data": "{IMAGE}", "target": 4}}')
    ((status, answer, _),) = ask(small, ({"body": sent}, EXPLAIN))
    assert status == 200 and answer["explanations"][0]["target"]["index"] == 4


def test_a_picture_of_too_many_bytes_is_a_413_before_it_is_decoded(small: Made, quiet: np.ndarray) -> None:
    large = bytes(4_000_001)
    rows = [({"body": bytearray(large)}, EXPLAIN), (body(large), PREDICT)]
    assert statuses(small, quiet, *rows) == [413, 413]


#: Of Python's audit events (PEP 578): what opens, fetches, runs or unpickles.
WATCHED = (
    "open", "os.open", "os.listdir", "os.scandir", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
    "socket.connect", "socket.getaddrinfo", "urllib.Request", "pickle.find_class", "exec", "ctypes.dlopen",
)  # fmt: skip


def test_nothing_that_a_request_names_is_opened_fetched_or_unpickled(small: Made, tmp_path: Path) -> None:
    bait = tmp_path / "bait.png"
    bait.write_bytes(picture())
    seen: list[str] = []
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # A file that Python itself loads code from is no request's doing.
        own = event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so"))
        if watching and not own and event in WATCHED:
            seen.append(f"{event} {arguments}")

    names = [str(bait), bait.as_uri(), "http://127.0.0.1:1/cat.png", "ftp://127.0.0.1/cat.png", "../bait.png"]
    sent: list[tuple[Any, dict[str, Any]]] = [
        ({"body": value}, headers) for name in names for value in every_place(name) for headers in (EXPLAIN, INVOKE)
    ]
    sent += [({"body": bytearray(name.encode())}, EXPLAIN) for name in names]
    sent += [({"body": bytearray(pictures.no_picture(random.Random(seed)))}, EXPLAIN) for seed in range(60)]
    sent += [({"data": bytearray(picture()), name: b"/dev/null"}, EXPLAIN) for name in ("path", "url", "file", "layer")]
    sys.addaudithook(watch)  # for good: Python removes none
    ask(small, *sent[:40])
    watching = True
    try:
        answers = ask(small, *sent)
        with open(bait, "rb"):
            pass
    finally:
        watching = False
    assert len(seen) == 1 and "bait.png" in seen[0], seen
    assert {status for status, *_ in answers} <= {200, 400, 413, 415}
