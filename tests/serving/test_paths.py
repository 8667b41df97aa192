"""Gradients along paths through the whole service, in ordinary mode and in continuous batching."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heatserve.client.results import Explanation
from heatserve.engine import Query
from heatserve.imaging import decode
from heatserve.serving.service import Row, Service
from tests.serving.small import picture, small_service
from tests.serving.test_continuous import Frontend, alone

__all__ = ["alone"]

ASKED = {
    "path": {"method": "integrated_gradients", "samples": 9, "target": 2},
    "contrast": {"method": "integrated_gradients", "samples": 5, "target": "top2", "contrast": 0},
    "expected": {"method": "expected_gradients", "samples": 6, "seed": 3},
    "product": {"method": "input_x_gradient", "target": 1},
    "plain": {"method": "smoothgrad", "samples": 4},
    "guided": {"method": "guided_backpropagation", "target": "top2"},
    "guided_smooth": {"method": "guided_backpropagation", "target": 3, "samples": 5},
    "guided_cam": {"method": "guided_gradcam", "target": 4, "layer": "trunk"},
    "gradient": {"method": "gradient", "target": "top3"},
}

SIGNED = ("path", "contrast", "expected", "product")
RANDOM = ("expected", "plain", "guided_smooth")


def answered(service: Service, options: dict[str, Any]) -> Any:
    headers = {"Content-Length": "1", "explain": "True", **{f"X-Explain-{k}": str(v) for k, v in options.items()}}
    row = Row("a", {"body": picture()}, headers)
    while True:
        reply = service.call([row])
        if "a" in reply.answers:
            return reply.answers["a"]


def entries(body: Any) -> list[dict[str, Any]]:
    return list((body if isinstance(body, dict) else json.loads(bytes(body)))["explanations"])


def test_both_modes_answer_as_the_library_does_and_tell_the_completeness_error(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    frontend = Frontend(tmp_path)
    ordinary = small_service(tmp_path_factory.mktemp("ordinary"))
    image, _ = ordinary.settings.preprocess.tensor(decode(picture(), 10**6), 10**6)
    for name, options in ASKED.items():
        frontend.send(name, picture(), **options)
        frontend.send(f"{name}_raw", picture(), output="npy", **options)
    continuous = frontend.until_done()
    for name, options in ASKED.items():
        one, other = entries(answered(ordinary, options).body), entries(continuous[name]["body"])
        for ours, theirs in zip(one, other):
            query = Query(**{**options, "target": ours["target"]["index"]})
            (expected,) = ordinary.explainer.explain(image[None], query)
            for found in (ours, theirs):
                assert found["quality"]["samples_used"] == query.samples
                known = expected.facts.get("completeness_error")
                told = found["quality"].get("completeness_error")
                assert told == (None if known is None else pytest.approx(known, rel=1e-2))
                assert Explanation.of(found).completeness_error == told
                assert found.get("signed", False) == (name in SIGNED)
                assert (found["quality"]["standard_error"] is not None) == (name in RANDOM)
        raw = np.load(io.BytesIO(continuous[f"{name}_raw"]["body"]))
        (last,) = ordinary.explainer.explain(image[None], Query(**{**options, "target": one[0]["target"]["index"]}))
        first = torch.from_numpy(raw if raw.ndim == 2 else raw[0])
        assert float((first - last.map).abs().max()) <= 1e-4 * float(last.map.abs().max())


def test_a_completeness_error_without_a_difference_of_scores_is_null(tmp_path: Path) -> None:
    service = small_service(tmp_path, {"preprocess": {"resize": 36, "crop": 32, "mean": [0.0] * 3, "std": [1.0] * 3}})
    black = io.BytesIO()
    Image.new("RGB", (40, 40)).save(black, "PNG")
    headers = {"Content-Length": "1", "explain": "True", "X-Explain-method": "integrated_gradients"}
    row, reply = Row("a", {"body": black.getvalue()}, headers), None
    while reply is None or "a" not in reply.answers:
        reply = service.call([row])
    (entry,) = entries(reply.answers["a"].body)
    assert entry["quality"]["completeness_error"] is None and entry["quality"]["empty"]


def test_every_line_of_a_stream_tells_the_completeness_error_of_its_points(tmp_path: Path) -> None:
    service, told = small_service(tmp_path), []
    options = {"method": "integrated_gradients", "samples": 40, "target": 2, "stream": "true"}
    headers = {"Content-Length": "1", "explain": "True", **{f"X-Explain-{k}": str(v) for k, v in options.items()}}
    row, left = Row("a", {"body": picture()}, headers), True
    while left:
        reply = service.call([row])
        left = "a" in reply.lines or "a" not in reply.answers
        told += [entries(reply.answers["a"].body)[0]["quality"]] if "a" in reply.answers else []
    errors = [quality["completeness_error"] for quality in told]
    assert len(errors) > 2 and told[-1]["samples_used"] == 40 and errors[-1] < max(errors[:-1])
