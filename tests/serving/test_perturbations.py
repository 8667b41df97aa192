"""RISE, occlusion and Score-CAM through the service: both modes, deadlines, streams, limits and reports."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heatserve.client.results import Result
from heatserve.engine import Explainer, Query
from heatserve.serving.answers import Answer
from heatserve.serving.service import Row, Service
from tests.engine.networks import distance
from tests.serving.small import Small, picture, small_service

METHODS = ("rise", "occlusion", "scorecam")
#: All draws of each method for a view of 32 x 32, with 12 channels.
ALL = {"rise": 200, "occlusion": 101, "scorecam": 12}
MODES = {"ordinary": {}, "continuous": {"continuousBatching": True, "batchSize": 4}}


@pytest.fixture(params=[*MODES], scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    yield small_service(tmp_path_factory.mktemp("archive"), MODES[request.param])


def row(name: str = "a", explain: str = "True", **options: Any) -> Row:
    headers = {"Content-Length": "1", **{f"X-Explain-{k}": str(v) for k, v in options.items()}}
    return Row(name, {"body": picture()}, {**headers, **({"explain": explain} if explain else {})})


def ask(service: Service, *rows: Row) -> tuple[dict[str, Answer], dict[str, list[Any]]]:
    """The answers of rows, and the lines of their streams; all wait in the same calls."""
    answers: dict[str, Answer] = {}
    lines: dict[str, list[Any]] = {one.id: [] for one in rows}
    while len(answers) < len(rows):
        reply = service.call([one for one in rows if one.id not in answers])
        answers.update({name: answer for name, answer in reply.answers.items() if name not in reply.lines})
        for name, line in reply.lines.items():
            lines[name].append(content(line))
    return answers, lines


def content(answer: Answer) -> dict[str, Any]:
    return dict(answer.body) if isinstance(answer.body, Mapping) else dict(json.loads(bytes(answer.body)))


def explanation(service: Service, **options: Any) -> dict[str, Any]:
    answers, _ = ask(service, row(**options))
    assert answers["a"].status == 200, answers["a"].body
    (found,) = content(answers["a"])["explanations"]
    return dict(found)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_beside_all_other_methods_and_predictions_is_the_engines(service: Service, method: str) -> None:
    rows = [row(other, method=other, samples=30, target=4) for other in (*METHODS, "smoothgrad", "gradcam")]
    answers, _ = ask(service, *rows, row("p", explain=""), row("a", method=method, target=2, output="npy"))
    assert {one.status for one in answers.values()} == {200}
    ours = torch.from_numpy(np.load(io.BytesIO(bytes(answers["a"].body))))  # type: ignore[arg-type]
    torch.manual_seed(0)
    plain = Explainer(Small(), torch.rand(1, 3, 32, 32))
    view = view_of(service)
    (theirs,) = plain.explain(view, Query(method, target=2))
    values = theirs.map[None, None]
    if theirs.map.shape != (32, 32):
        values = torch.nn.functional.interpolate(values, (32, 32), mode="bilinear")
    assert distance(ours.reshape(32, 32), values[0, 0]) < 2e-3


def view_of(service: Service) -> torch.Tensor:
    """The model's view of the picture, as the network gets it for a prediction."""
    taken: list[torch.Tensor] = []
    handle = service.explainer.model.register_forward_pre_hook(lambda _m, given: taken.append(given[0].clone()))
    ask(service, row(explain=""))
    handle.remove()
    return taken[0].contiguous()


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_says_how_much_was_done(service: Service, method: str) -> None:
    found = explanation(service, method=method)
    quality = found["quality"]
    assert quality["samples_used"] == found["parameters"]["samples"] == ALL[method]
    assert quality["converged"] is None
    assert (quality["standard_error"] is not None) == (method == "rise")
    assert quality.get("share_done") == (None if method == "rise" else 1)
    assert found["parameters"]["layer"] == ("trunk" if method == "scorecam" else None)
    assert found["parameters"]["seed"] == (0 if method == "rise" else None)
    fewer = explanation(service, method=method, samples=6)["quality"]
    assert fewer["samples_used"] == 6
    assert fewer.get("share_done") == (None if method == "rise" else 6 / ALL[method])


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_has_lines_whose_share_grows_and_ends_with_the_whole_answer(service: Service, method: str) -> None:
    answers, lines = ask(service, row(method=method, stream="true"), row("b", method="smoothgrad", samples=20))
    found = [Result.of(line).explanation for line in [*lines["a"], content(answers["a"])]]
    used = [one.samples_used for one in found]
    assert len(used) > 1 and used == sorted(used) and used[-1] == ALL[method]
    if method != "rise":
        assert [one.share_done for one in found] == pytest.approx([count / ALL[method] for count in used])
    assert not any(one.empty for one in found)


@pytest.mark.parametrize("method", METHODS)
def test_a_deadline_gives_the_map_of_the_draws_that_there_are(tmp_path: Path, method: str) -> None:
    for name, mode in MODES.items():
        (tmp_path / name).mkdir()
        made = small_service(tmp_path / name, {**mode, "explain": {"chunk": 1}})
        found = explanation(made, method=method, deadline_ms=1)
        quality = found["quality"]
        assert 2 <= quality["samples_used"] < ALL[method] and quality["converged"] is False, name
        if method != "rise":
            assert quality["share_done"] == quality["samples_used"] / ALL[method]
        assert found["heatmap"]["data"]


def test_a_request_that_names_no_samples_gets_what_its_archive_allows_for_all_its_maps(tmp_path: Path) -> None:
    made = small_service(tmp_path, {"explain": {"max_samples": 40}})
    assert {explanation(made, method=method)["quality"]["samples_used"] for method in METHODS} == {40, 12}
    answers, _ = ask(made, row(method="occlusion", target="top3"))
    maps = content(answers["a"])["explanations"]
    assert [one["quality"]["samples_used"] for one in maps] == [13, 13, 13]
    assert {one["quality"]["share_done"] for one in maps} == {13 / 101}
    answers, _ = ask(made, row(method="occlusion", samples=41))
    assert answers["a"].status == 413


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "rise", "samples": 1}, "samples must be at least 2 for rise"),
        ({"method": "occlusion", "standard_error": 0.5}, "standard_error belongs to random samples"),
        ({"method": "scorecam", "seed": 3}, "seed has no meaning for scorecam"),
        ({"method": "occlusion", "layer": "trunk"}, "layer has no meaning for occlusion"),
        ({"method": "rise", "noise_level": 0.3}, "noise_level has no meaning for rise"),
    ],
)
def test_options_without_meaning_are_refused(service: Service, options: dict[str, Any], said: str) -> None:
    answers, _ = ask(service, row(**options))
    assert answers["a"].status == 400 and said in content(answers["a"])["message"]


def test_masks_end_at_the_standard_error_that_was_asked_for(service: Service) -> None:
    found = explanation(service, method="rise", samples=200, standard_error=0.9, target=2)["quality"]
    assert found["converged"] is True and 10 <= found["samples_used"] < 200 and found["standard_error"] <= 0.9
