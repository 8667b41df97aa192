"""Several targets of one picture through the whole service: they share forward passes, and nothing else changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heatserve.engine import METHODS, Attribution, Explainer, Query, Smoothing, registry
from heatserve.imaging import decode
from heatserve.serving.service import Row, Service
from heatserve.serving.states import Finished, UnderWay
from tests.engine.networks import distance
from tests.serving.small import picture, small_service
from tests.serving.test_continuous import Frontend, alone
from tests.serving.test_smoothdiff import grey

pytestmark = pytest.mark.fast_path

__all__ = ["alone"]


def row(name: str = "a", **options: Any) -> Row:
    headers = {f"X-Explain-{key.replace('_', '-')}": str(value) for key, value in options.items()}
    return Row(name, {"body": picture()}, {"Content-Length": "1", "explain": "True", **headers})


def answers_of(service: Service, *rows: Row) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    while left := [one for one in rows if one.id not in found]:
        for name, answer in service.call(left).answers.items():
            body = answer.body if isinstance(answer.body, dict) else json.loads(bytes(answer.body))
            found[name] = body["explanations"]
    return found


def attributions_of(service: Service, asked: Row) -> Sequence[Attribution]:
    service.call([])
    service.loop.admit(asked)
    (item,) = service.loop.rows[asked.id].items
    while not item.done:
        service.loop.step()
    service.loop.take(asked.id)
    assert isinstance(item.state, Finished)
    return item.state.attributions


def counted(explainer: Explainer) -> Counter[str]:
    """The images of forward passes, which go on with each pass."""
    found: Counter[str] = Counter()
    explainer.model.register_forward_pre_hook(lambda _, inputs: found.update(images=len(inputs[0]), passes=1))
    return found


@pytest.mark.parametrize(
    ("options", "images"),
    [
        ({"method": "smoothgrad", "samples": 9}, 9),
        ({"method": "smoothgrad", "samples": 9, "contrast": "nearest1"}, 9),
        ({"method": "gradcam", "samples": 9}, 9),
        ({"method": "integrated_gradients", "samples": 9}, 11),
        ({"method": "rise", "samples": 40}, 40),
        ({"method": "scorecam"}, 12),
    ],
)
def test_five_targets_take_the_forward_passes_of_one_and_answer_as_each_alone(
    tmp_path: Path, options: dict[str, Any], images: int
) -> None:
    service = small_service(tmp_path)
    image, _ = service.settings.preprocess.tensor(decode(picture(), 10**6), 10**6)
    forwards = counted(service.explainer)
    found = attributions_of(service, row(target="top5", **options))
    assert forwards["images"] == 1 + images
    assert len({one.query.target for one in found}) == len(found) == 5
    for one in found:
        asked = {**options, "target": one.query.target}
        if "contrast" in asked:
            asked["nearest"] = int(asked.pop("contrast")[-1])
        (expected,) = service.explainer.explain(image[None], Query(**asked))
        assert distance(one.values, expected.values) < 1e-5
        assert one.samples_used == expected.samples_used and one.facts == pytest.approx(expected.facts, rel=1e-4)
        (only,) = attributions_of(service, row(**{**options, "target": one.query.target}))
        assert distance(one.values, only.values) < 1e-5


def test_masks_that_depend_on_the_target_are_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer at the image is turned by one column for the second target."""

    def turned(signal: Any) -> torch.Tensor:
        return torch.stack([one.roll(k, -1) for k, one in enumerate(signal.activations)])

    monkeypatch.setitem(registry._methods, "scorecam", replace(METHODS["scorecam"], prepare=turned))
    service = small_service(tmp_path)
    image, _ = service.settings.preprocess.tensor(decode(picture(), 10**6), 10**6)
    query = Query("scorecam").at_image
    assert query is not None
    activations = service.explainer.run(image[None], [[query]])[1][0][0].values
    forwards = counted(service.explainer)
    found = attributions_of(service, row(target="top2", method="scorecam"))
    assert forwards["images"] == 1 + 2 * 12
    for k, one in enumerate(found):
        alone = Smoothing(image, one.query, activations.roll(k, -1))
        while alone.left:
            list(service.explainer.advance([(alone, min(4, alone.left))]))
        assert distance(one.values, alone.estimate().values) < 1e-5


def test_a_target_whose_error_is_reached_leaves_the_others_together(tmp_path: Path) -> None:
    service = small_service(tmp_path)
    options = {"method": "smoothgrad", "samples": 40, "standard_error": 0.2}
    forwards = counted(service.explainer)
    entries = answers_of(service, row(target="top5", **options))["a"]
    used = [entry["quality"]["samples_used"] for entry in entries]
    assert len(set(used)) > 1 and min(used) < 40
    assert forwards["images"] <= 1 + max(used) + service.explainer.chunk
    for entry, samples in zip(entries, used):
        only = answers_of(service, row(target=entry["target"]["index"], **options))["a"][0]
        assert only["quality"]["samples_used"] == samples


def test_a_step_has_one_forward_or_one_backward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frontend = Frontend(tmp_path)
    service = frontend.handler.service
    forwards, backwards = counted(service.explainer), Counter[str]()
    gradients = torch.autograd.grad

    def counting(*args: Any, **options: Any) -> Any:
        backwards.update(passes=1)
        return gradients(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    frontend.send("a", picture(), method="smoothgrad", samples=6, target="top4")
    frontend.send("p", picture(), "predictions")
    per_step, answered = [], {}
    while frontend.rows:
        before = forwards["passes"] + backwards["passes"]
        answered |= frontend.step()
        per_step.append(forwards["passes"] + backwards["passes"] - before)
    assert max(per_step) == 1 and answered["a"]["status"] == 200
    assert backwards["passes"] == 4 * (forwards["passes"] - 1)
    assert forwards["images"] == 1 + 1 + 6


def test_the_price_of_targets_is_what_they_wait_and_are_served_for(tmp_path: Path) -> None:
    service = small_service(tmp_path)
    work = []
    finished = service.loop._policy.finished

    def noting(size: int, of_chunk: int, longest: float) -> None:
        work.append((size, of_chunk))
        finished(size, of_chunk, longest)

    service.loop._policy.finished = noting  # type: ignore[method-assign]
    asked = row(target="top3", method="smoothgrad", samples=6)
    service.call([asked])
    item = service.loop.rows["a"].items[0]
    left = [item.work_left]
    while not item.done:
        service.loop.step()
        left.append(item.work_left)
    assert left[0] in (1 + 6 * 7, 6 * 7) and left[-1] == 0
    assert sum(size for size, _ in work) == 6 and sum(price for _, price in work) == 6 * 7
    assert item.served == pytest.approx(6 * 7 / 3)


def test_a_deadline_gives_all_targets_as_many_samples(tmp_path: Path) -> None:
    frontend = Frontend(tmp_path)
    frontend.send("late", picture(), method="smoothgrad", samples=40, target="top5", deadline_ms=1)
    entries = json.loads(frontend.until_done()["late"]["body"])["explanations"]
    (used,) = {entry["quality"]["samples_used"] for entry in entries}
    assert 2 <= used < 40


def test_a_fault_in_a_shared_chunk_leaves_the_targets_of_another_item_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend = Frontend(tmp_path)
    loop, steps, in_step = frontend.handler.service.loop, Explainer.steps, []

    def failing(self: Explainer, images: torch.Tensor, queries: Any, *precision: str) -> Any:
        if any(query.seed == 7 and query.smoothed for row in queries for query in row):
            raise RuntimeError("of one row")
        return steps(self, images, queries, *precision)

    monkeypatch.setattr(Explainer, "steps", failing)
    monkeypatch.setattr(type(loop._policy), "size", lambda self, largest: 8)
    frontend.send("bad", picture(), method="smoothgrad", samples=3, target="top3", seed=7)
    frontend.send("good", picture(), method="smoothgrad", samples=20, target="top3")
    found: dict[str, Any] = {}
    while frontend.rows:
        found |= frontend.step()
        state = loop.rows["good"].items[0].state if "good" in loop.rows else None
        in_step.append(len(state.groups) if isinstance(state, UnderWay) else 1)
    assert {name: answer["status"] for name, answer in found.items()} == {"bad": 500, "good": 200}
    assert set(in_step) == {1}
    entries = json.loads(found["good"]["body"])["explanations"]
    assert [entry["quality"]["samples_used"] for entry in entries] == [20, 20, 20]


@pytest.mark.parametrize("method", ["smoothgrad", "integrated_gradients", "scorecam", "rise", "smoothdiff"])
@pytest.mark.parametrize("target", ["top1", "top3"])
def test_a_job_that_had_all_its_draws_in_a_chunk_that_failed_gets_no_further_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, target: str
) -> None:
    frontend = Frontend(tmp_path)
    loop, steps = frontend.handler.service.loop, Explainer.steps
    asked = {"method": method, "samples": 5, "target": target, "output": "json"}
    frontend.send("alone", picture(), **asked)
    expected = frontend.until_done()["alone"]

    def failing(self: Explainer, images: torch.Tensor, queries: Any, *precision: str) -> Any:
        if any(query.seed == 7 and query.smoothed for row in queries for query in row):
            raise RuntimeError("of one row")
        return steps(self, images, queries, *precision)

    monkeypatch.setattr(Explainer, "steps", failing)
    monkeypatch.setattr(type(loop._policy), "size", lambda self, largest: 200)
    frontend.send("good", picture(), **asked)
    # As many targets as no other row has: its draws are the last pass of the chunk.
    frontend.send("bad", picture(), method="smoothgrad", samples=3, target="top4", seed=7)
    found: dict[str, Any] = {}
    for _ in range(100):
        found |= frontend.step()
    assert {name: answer["status"] for name, answer in found.items()} == {"bad": 500, "good": 200}
    one, other = (json.loads(answer["body"])["explanations"] for answer in (expected, found["good"]))
    for entry, same in zip(one, other):
        assert entry["quality"]["samples_used"] == same["quality"]["samples_used"]
        assert np.abs(grey(entry).astype(int) - grey(same)).max() <= 1
