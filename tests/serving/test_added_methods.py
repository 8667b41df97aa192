"""Methods of an archive's own modules are served as the others are: options, streams, deadlines, errors and reports."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from heatserve.engine import METHODS, Explainer, Query, registry
from heatserve.serving.answers import Answer
from heatserve.serving.service import Row, Service
from tests.engine.added import rise, straight_path
from tests.serving.small import Small, picture, small_service

MODULE = """
from heatserve import register
from {0} import METHOD
register(METHOD)
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service of an archive with two modules that bring a method each."""
    before = dict(METHODS)
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"{name}_{tmp_path.name}".replace("-", "_") for name in ("visible", "straight_path")]
    for name, module in zip(names, (rise, straight_path)):
        (tmp_path / f"{name}.py").write_text(MODULE.format(module.__name__), encoding="utf-8")
    yield small_service(tmp_path, {"explain": {"extensions": names}})
    registry._methods.clear()
    registry._methods.update(before)


def ask(service: Service, **options: Any) -> tuple[Answer, list[dict[str, Any]]]:
    """The answer, and the lines of a stream that were sent before it."""
    headers = {"Content-Length": "1", "explain": "True", **{f"X-Explain-{k}": str(v) for k, v in options.items()}}
    row, lines = Row("a", {"body": picture()}, headers), []
    while True:
        reply = service.call([row])
        if "a" in reply.lines:
            lines.append(content(reply.lines["a"]))
        elif "a" in reply.answers:
            return reply.answers["a"], lines


def content(answer: Answer) -> dict[str, Any]:
    return dict(answer.body) if isinstance(answer.body, Mapping) else dict(json.loads(bytes(answer.body)))


def document(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return content(answer)


def raw(answer: Answer) -> NDArray[np.float32]:
    assert answer.status == 200 and isinstance(answer.body, (bytes, bytearray))
    values: NDArray[np.float32] = np.load(io.BytesIO(bytes(answer.body)))
    return values


@pytest.mark.parametrize("method", ["visible", "straight_path"])
def test_the_map_is_the_engines_own(service: Service, method: str) -> None:
    one = service.explainer
    found = raw(ask(service, method=method, samples=12, target=2, output="npy")[0])
    gradient = document(ask(service, method=method, samples=12, target=2)[0])
    assert found.shape[-2:] == (32, 32) and gradient["explanations"][0]["method"] == method
    assert method in one.methods() and one.layer_of(Query(method)) is None
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    (alone,) = Explainer(Small(), image).explain(image, Query(method, target=2, samples=12))
    (ours,) = one.explain(image, Query(method, target=2, samples=12))
    assert torch.allclose(alone.map, ours.map, atol=1e-4 * float(alone.map.abs().max()))


def test_a_report_names_the_options_that_the_draws_depend_on_and_no_others(service: Service) -> None:
    (masks,), (path,) = (
        document(ask(service, method=method, samples=12)[0])["explanations"] for method in ("visible", "straight_path")
    )
    assert (masks["parameters"]["seed"], masks["parameters"]["noise_level"]) == (0, None)
    assert (path["parameters"]["seed"], path["parameters"]["noise_level"]) == (None, None)
    assert masks["quality"]["standard_error"] > 0 and path["quality"]["standard_error"] is None
    assert masks["quality"]["samples_used"] == path["quality"]["samples_used"] == 12


@pytest.mark.parametrize("method", ["visible", "straight_path"])
def test_a_stream_has_a_line_for_each_improvement_and_the_last_is_the_whole_answer(
    service: Service, method: str
) -> None:
    answer, lines = ask(service, method=method, samples=40, stream="true")
    used = [line["explanations"][0]["quality"]["samples_used"] for line in [*lines, content(answer)]]
    assert len(used) > 1 and used == sorted(used) and used[-1] == 40
    picture_of = [line["explanations"][0]["heatmap"]["data"] for line in lines]
    assert all(base64.b64decode(data)[1:4] == b"PNG" for data in picture_of)


def test_masks_end_at_a_standard_error_and_a_path_refuses_one(service: Service) -> None:
    (masks,) = document(ask(service, method="visible", samples=200, standard_error=0.5)[0])["explanations"]
    assert masks["quality"]["converged"] is True and 10 <= masks["quality"]["samples_used"] < 200
    answer, _ = ask(service, method="straight_path", samples=20, standard_error=0.5)
    assert answer.status == 400 and "standard_error belongs to random samples" in content(answer)["message"]
    for method, option in (
        ("visible", "noise_level"),
        ("straight_path", "noise_level"),
        ("straight_path", "seed"),
    ):
        answer, _ = ask(service, method=method, samples=4, **{option: 1})
        assert answer.status == 400 and f"{option} has no meaning for {method}" in content(answer)["message"]
    assert ask(service, method="visible", samples=4, seed=1)[0].status == 200
    answer, _ = ask(service, method="visible", layer="trunk")
    assert answer.status == 400 and "a method of the score" in content(answer)["message"]
