"""SmoothDiff through the service: steps of forward passes, several targets, streams, deadlines and limits."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heatserve.engine import Query
from heatserve.engine.derivatives import Collecting, Following
from heatserve.engine.network import Network
from heatserve.serving import derivatives
from heatserve.serving.service import Row, Service
from tests.serving.small import picture, small_service


@pytest.fixture(params=[False, True], ids=["ordinary", "continuous"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Service:
    return small_service(tmp_path, {"continuousBatching": request.param})


def explained(name: str, seed: int = 0, **options: Any) -> Row:
    headers = {f"X-Explain-{key.replace('_', '-')}": str(value) for key, value in options.items()}
    return Row(name, {"body": picture(seed=seed)}, {"Content-Length": "1", "explain": "True", **headers})


def answers(service: Service, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The answers of each row, its lines first."""
    found: dict[str, list[Any]] = {row.id: [] for row in rows}
    left = list(rows)
    for _ in range(1000):
        reply = service.call(left)
        for name, answer in reply.answers.items():
            found[name].append(answer)
        left = reply.unanswered(left)
        if not left:
            return found
    raise AssertionError("rows are left")


def image_of(service: Service, seed: int) -> torch.Tensor:
    """The model's view of a picture, as the service decodes it."""
    rows = [explained("view", seed, method="smoothgrad", samples=50)]
    while True:
        service.call(rows)
        state = service.loop.rows["view"].items[0].state
        if hasattr(state, "decoded"):
            service.loop.begin([])
            return state.decoded.image


def grey(entry: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["heatmap"]["data"]))))


def test_the_map_is_the_librarys_whatever_is_in_the_batch(service: Service) -> None:
    image = image_of(service, 1)
    raw = {"method": "smoothdiff", "target": 2, "output": "npy"}
    rows = [explained("a", 1, **raw), explained("b", 2, **raw), explained("c", 3, method="smoothgrad", samples=9)]
    rows.append(explained("d", 1, method="smoothdiff", target=2, output="npy", contrast=4))
    found = answers(service, rows)
    for name, contrast in (("a", None), ("d", 4)):
        assert found[name][-1].status == 200, found[name][-1].body
        ours = np.load(io.BytesIO(found[name][-1].body))
        expected = service.explainer.explain(image[None], Query("smoothdiff", target=2, contrast=contrast))[0]
        np.testing.assert_allclose(ours, expected.map.numpy(), rtol=1e-4, atol=1e-5 * float(expected.map.max()))
    assert found["a"][-1].headers["X-Explanation-Approximates"] == "smoothgrad"
    assert "X-Explanation-Standard-Error" not in found["a"][-1].headers


@pytest.mark.fast_path
def test_targets_share_the_forward_passes_of_a_picture(service: Service) -> None:
    counts: list[int] = []
    handle = service.explainer.model.register_forward_pre_hook(lambda module, args: counts.append(len(args[0])))
    (answer,) = answers(service, [explained("a", target="top5", method="smoothdiff")])["a"]
    handle.remove()
    # The prediction, ten copies, and the picture again for the backward passes: at most once for each target.
    assert 12 <= sum(counts) <= 1 + 10 + 5
    document = json.loads(answer.body)
    assert [entry["target"]["index"] for entry in document["explanations"]] == [
        entry["index"] for entry in document["predictions"]
    ]
    for entry in document["explanations"]:
        assert entry["approximates"] == "smoothgrad"
        assert entry["quality"]["samples_used"] == 10 and entry["quality"]["standard_error"] is None
        alone = answers(service, [explained("b", target=entry["target"]["index"], method="smoothdiff")])["b"][0]
        (own,) = json.loads(alone.body)["explanations"]
        assert entry["heatmap"]["scale"] == pytest.approx(own["heatmap"]["scale"], rel=1e-5)
        assert np.abs(grey(entry).astype(int) - grey(own)).max() <= 1


def test_an_error_is_given_where_it_is_asked_for(service: Service) -> None:
    (answer,) = answers(service, [explained("a", method="smoothdiff", standard_error=9.0)])["a"]
    (entry,) = json.loads(answer.body)["explanations"]
    assert entry["quality"]["standard_error"] > 0 and entry["quality"]["converged"] is True
    assert entry["quality"]["samples_used"] == entry["parameters"]["samples"] == 10


def test_a_deadline_does_not_end_it_and_a_stream_has_one_line(service: Service) -> None:
    rows = [explained("late", method="smoothdiff", deadline_ms=1)]
    rows.append(explained("stream", method="smoothdiff", stream="true"))
    found = answers(service, rows)
    (late,), lines = found["late"], found["stream"]
    assert json.loads(late.body)["explanations"][0]["quality"]["samples_used"] == 10
    assert len(lines) == 1 and json.loads(lines[0].body)["explanations"][0]["quality"]["samples_used"] == 10


def test_an_archives_error_is_for_statistics_alone(tmp_path: Path) -> None:
    service = small_service(tmp_path, {"explain": {"standard_error": 0.5}})
    (answer,) = answers(service, [explained("a", method="smoothdiff")])["a"]
    assert json.loads(answer.body)["explanations"][0]["quality"]["standard_error"] is None


def test_sums_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = small_service(tmp_path, {"continuousBatching": True})
    # The two ReLUs of the network at 32 x 32: one byte for each of their values, also of a pass that is not added yet.
    one = 2 * (8 * 16 * 16 + 12 * 8 * 8)
    monkeypatch.setattr(derivatives, "MOST", 2 * one)
    rows = [explained(name, method="smoothdiff") for name in "abc"]
    rows.append(explained("d", method="smoothgrad", samples=3))
    assert [answers(service, rows)[name][0].status for name in "abcd"] == [200, 200, 503, 200]
    monkeypatch.setattr(derivatives, "MOST", 2 * one - 1)
    image = base64.b64encode(picture()).decode()
    body = {"body": {"instances": [{"b64": image}] * 2}}
    row = Row("e", body, {"Content-Length": "1", "explain": "True", "X-Explain-method": "smoothdiff"})
    (answer,) = answers(service, [row])["e"]
    assert b"at most 1 pictures of one request can be explained by mean derivatives" in answer.body
    monkeypatch.setattr(derivatives, "MOST", 1)
    assert answers(service, [explained("f", method="smoothdiff")])["f"][0].status == 200


@pytest.mark.parametrize("kind", [Collecting, Following])
def test_a_pass_that_fails_once_leaves_no_target_without_an_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    passes, failed = Network.passes, []

    def failing(self: Network, *args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("mode"), kind) and not failed:
            failed.append(1)
            raise RuntimeError("of one pass")
        return passes(self, *args, **kwargs)

    monkeypatch.setattr(Network, "passes", failing)
    monkeypatch.setattr(type(service.loop._policy), "size", lambda self, largest: 64)
    rows = [explained(name, method="smoothdiff", target="top3") for name in "ab"]
    found = answers(service, rows)
    assert failed and [found[name][0].status for name in "ab"] == [200, 200]
