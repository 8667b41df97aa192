"""The one call of the core, made by a host of the test's own."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heatserve.serving.facts import CallFacts, ItemFacts
from heatserve.serving.loop import Loop
from heatserve.serving.metrics import Metrics
from heatserve.serving.service import Reply, Row, Service
from heatserve.serving.writer import Writer
from tests.serving.small import picture, small_service

ILLEGAL = "CUDA error: an illegal memory access was encountered"


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return small_service(tmp_path_factory.mktemp("ordinary"))


@pytest.fixture(scope="module")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return small_service(tmp_path_factory.mktemp("continuous"), {"continuousBatching": True})


@pytest.fixture(params=["ordinary", "continuous"])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(request.param)
    found.loop.begin([])
    return found


def explained(name: str, seed: int = 0, **options: Any) -> Row:
    headers = {f"X-Explain-{key.replace('_', '-')}": str(value) for key, value in options.items()}
    return Row(name, {"body": picture(seed=seed)}, {"Content-Length": "1", "explain": "True", **headers})


def predicted(name: str, seed: int = 0) -> Row:
    return Row(name, {"body": picture(seed=seed)}, {"Content-Length": "1", "explain": "False"})


def replies(service: Service, rows: Sequence[Row], bodies: bool = True) -> list[Reply]:
    """Every reply until all rows are answered. bodies: whether they are sent again in each call."""
    found = [service.call(rows)]
    left = found[0].unanswered(rows)
    while left:
        assert found[-1].left and len(found) < 1000
        found.append(service.call(left if bodies else [Row(row.id, None, {}) for row in left]))
        left = found[-1].unanswered(left)
    assert not found[-1].left and not service.loop.rows
    return found


def joined(found: Sequence[Reply]) -> Reply:
    whole = found[0]
    for reply in found[1:]:
        whole = whole.then(reply)
    return whole


def test_a_row_brings_its_body_once(service: Service) -> None:
    rows = [
        explained("a", method="smoothgrad", samples=12, output="npy"),
        explained("b", 1, method="gradient", output="npy"),
    ]
    once, always = (joined(replies(service, rows, bodies)) for bodies in (False, True))
    for name in "ab":
        assert once.answers[name].status == 200
        maps = [np.load(io.BytesIO(bytes(reply.answers[name].body))) for reply in (once, always)]
        assert np.abs(maps[0] - maps[1]).max() <= 1e-5 * np.abs(maps[1]).max()


def test_a_row_that_is_gone_is_given_up(service: Service) -> None:
    gone, waits = explained("gone", method="smoothgrad", samples=40), explained("waits", 1, method="smoothgrad")
    assert service.call([gone, waits]).facts.given_up == 0
    reply = service.call([waits])
    assert reply.facts.given_up == 1 and list(service.loop.rows) == ["waits"] and reply.left
    reply = service.call([])
    assert reply.facts.given_up == 1 and not service.loop.rows and not reply.left and not reply.answers


def test_a_new_row_is_answered_while_another_one_is_under_way(continuous: Service) -> None:
    long = explained("long", method="smoothgrad", samples=200)
    continuous.call([long])
    for index in range(3):
        new = predicted(f"p{index}", index)
        reply = continuous.call([long, new])
        while new.id not in reply.answers:
            reply = continuous.call([long, new])
        assert list(reply.answers) == [new.id] and reply.left and reply.unanswered([long, new]) == [long]
    continuous.loop.begin([])


def test_lines_of_a_stream_are_replies_whose_rows_wait(service: Service) -> None:
    found = replies(service, [explained("live", method="smoothgrad", samples=40, stream="true")])
    sent = [reply.answers["live"] for reply in found if reply.answers]
    used = [json.loads(bytes(line.body))["explanations"][0]["quality"]["samples_used"] for line in sent]
    assert used == sorted(set(used)) and used[-1] == 40
    assert [line.more for line in sent[:-1]] == [True] * (len(sent) - 1) and sent[-1].more is (
        False if sent[:-1] else None
    )
    assert all(reply.lines == {} or reply.left for reply in found)
    # The time of rendering is that of all lines.
    facts = found[-1].facts.answered["live"][0]
    assert facts.seconds["render"] > 0


def test_a_call_that_fails_refuses_every_row_and_the_next_one_works(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [predicted("p"), explained("e", method="smoothgrad")]
    with monkeypatch.context() as patch:
        patch.setattr(service.loop, "step", lambda: 1 / 0)
        reply = service.call(rows)
    assert {name: answer.status for name, answer in reply.answers.items()} == {"p": 500, "e": 500}
    assert not reply.left and not reply.lost and not service.loop.rows
    assert joined(replies(service, rows)).answers["p"].status == 200


def test_a_fault_of_the_host_refuses_every_row(service: Service) -> None:
    waits = explained("waits", method="smoothgrad")
    service.call([waits])
    reply = service.fail([waits, predicted("new")], OSError("the connection is gone"))
    assert {name: answer.status for name, answer in reply.answers.items()} == {"waits": 500, "new": 500}
    assert not service.loop.rows


def test_a_fault_behind_the_rendering_answers_each_row_in_its_own_protocol(
    continuous: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = {"data": base64.b64encode(picture()).decode(), "method": "smoothgrad", "samples": 4}
    row = Row("v1", {"body": {"instances": [instance]}}, {"Content-Length": "1", "explain": "True"})
    reply = continuous.call([row])
    assert not reply.answers

    def fails_once_a_row_is_done(self: Writer, loop: Loop, *_: Any) -> None:
        if loop.done or not loop.rows:
            raise ZeroDivisionError

    monkeypatch.setattr(Writer, "_collect", fails_once_a_row_is_done)
    while not reply.answers:
        reply = continuous.call([Row("v1", None, {})])
    assert reply.answers["v1"].status == 500 and not continuous.loop.rows
    assert "error" in json.loads(bytes(reply.answers["v1"].body))


class Hostile:
    """Raises whatever is done with it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("equality")

    __hash__ = None  # type: ignore[assignment]


BODIES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "a number": lambda: 3,
    "no members": dict,
    "an object": lambda: {"body": object()},
    "a picture of numbers": lambda: {"data": {1: 2}},
    "a hostile body": lambda: {"body": Hostile()},
    "a hostile row": Hostile,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    "headers", [{}, {"explain": 3}, {"Content-Length": "1", "explain": "True", "url_path": 5}, {3: None}]
)
def test_the_call_never_raises_whatever_the_row(service: Service, body: str, headers: Any) -> None:
    whole = joined(replies(service, [Row("odd", BODIES[body](), headers), predicted("p")]))
    assert whole.answers["odd"].status >= 400 and whole.answers["p"].status == 200


def test_a_lost_device_ends_all_rows_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = small_service(tmp_path, {"continuousBatching": True})
    waits = explained("waits", method="smoothgrad", samples=100)
    service.call([waits])

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(ILLEGAL)

    monkeypatch.setattr(service.explainer.model, "forward", fails)
    rows = [waits, predicted("p"), explained("e", 1, method="gradient")]
    reply = service.call(rows)
    assert reply.lost and not reply.left and set(reply.answers) == {"waits", "p", "e"}
    assert {answer.status for answer in reply.answers.values()} == {500}
    assert service.call([predicted("late")]).lost


def test_facts_of_several_calls_join_to_those_of_one(service: Service) -> None:
    rows = [explained("slow", method="smoothgrad", samples=30), predicted("fast"), explained("odd", method="lime")]
    found = replies(service, rows)
    assert len(found) > 1 and sum(len(reply.facts.answered) for reply in found) == 3
    facts = joined(found).facts
    assert facts.admitted == {"slow": "explanation", "fast": "prediction", "odd": "refused"}
    assert list(facts.answered) == ["slow", "fast", "odd"] and facts.under_way == 0
    assert facts.answered["slow"][0].seconds["explain"] > 0
    emitted: list[tuple[str, float, list[str]]] = []
    Metrics(lambda declared, value, dimensions: emitted.append((declared.name, value, dimensions))).count(facts)
    assert [(name, *dimensions) for name, _, dimensions in emitted if "stage" not in name] == [
        ("heatserve_batch_rows_total", "explanation"),
        ("heatserve_batch_rows_total", "prediction"),
        ("heatserve_batch_rows_total", "refused"),
        ("heatserve_batches_total", "mixed"),
        ("heatserve_explanations_total", "smoothgrad", "json", "200"),
        ("heatserve_samples_total", "smoothgrad"),
        ("heatserve_explanations_total", "unknown", "unknown", "400"),
    ]


def test_joined_facts_add_up() -> None:
    item = ItemFacts(False, None)
    first = CallFacts({"a": "prediction", "b": "prediction"}, {"b": [item]}, 1, 4, 2)
    later = CallFacts({}, {"a": [item]}, 2, 3, 2)
    whole = first.then(later)
    assert whole == CallFacts(first.admitted, {"a": [item], "b": [item]}, 3, 3, 2)
    assert list(whole.answered) == ["a", "b"]
