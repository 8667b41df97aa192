"""An archive that names attributions of Captum in `explain.captum` is asked for them as for any other method."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from heatserve.engine import METHODS, Explainer, Query, UnsuitableModel, captum_bridge, registry
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.service import Row, Service
from heatserve.serving.settings import SettingsError, read_settings
from tests.serving.small import Small, picture, small_service
from tests.serving.test_added_methods import ask, content, document, raw

pytestmark = pytest.mark.filterwarnings("ignore")  # Captum announces its hooks
NAMES = ["DeepLift", "Deconvolution", "InputXGradient"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Nothing that a test adds to the registry stays there."""
    before = dict(METHODS)
    yield
    registry._methods.clear()
    registry._methods.update(before)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return small_service(tmp_path, {"explain": {"captum": NAMES, "chunk": 4}})


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_answers_them(service: Service, name: str) -> None:
    method = f"captum:{name}"
    found = raw(ask(service, method=method, target=2, output="npy")[0])
    assert found.shape[-2:] == (32, 32)
    (entry,) = document(ask(service, method=method, target=2)[0])["explanations"]
    assert entry["method"] == method and entry["heatmap"]["data"]
    smoothed = document(ask(service, method=method, target=2, samples=4)[0])["explanations"]
    assert smoothed[0]["quality"]["samples_used"] == 4
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    (alone,) = Explainer(Small(), image).explain(image, Query(method, target=2))
    (ours,) = service.explainer.explain(image, Query(method, target=2))
    assert torch.allclose(alone.map, ours.map, atol=1e-4 * float(alone.map.abs().max()))


def test_a_mixed_call_keeps_predictions_and_other_maps(service: Service) -> None:
    rows = [Row("p", {"body": picture()}, {"Content-Length": "1"})]
    for method in ("gradcam", "captum:DeepLift"):
        headers = {"Content-Length": "1", "explain": "True", "X-Explain-Method": method}
        rows.append(Row(method, {"body": picture(seed=1)}, headers))
    answers: dict[str, Any] = {}
    while left := [row for row in rows if row.id not in answers]:
        answers.update(service.call(left).answers)
    assert {answer.status for answer in answers.values()} == {200}


def test_the_description_names_them_and_options_without_meaning_are_refused(service: Service) -> None:
    allowed = service.responder.description["options"]["method"]["allowed"]
    assert all(f"captum:{name}" in allowed for name in NAMES) and "captum:Saliency" not in allowed
    answer, _ = ask(service, method="captum:DeepLift", layer="trunk")
    assert answer.status == 400
    assert "layer has no meaning for captum:DeepLift, which is a method of the model" in content(answer)["message"]
    assert ask(service, method="captum:Saliency")[0].status == 400


def test_a_fault_of_one_picture_is_a_sentence_and_the_worker_lives(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UnsuitableModel("Captum's DeepLift would take a function of this network for a linear one")

    with monkeypatch.context() as patched:
        patched.setattr(captum_bridge, "check_functions", refuse)
        answer, _ = ask(service, method="captum:DeepLift", target=1)
    assert answer.status == 500 and "for a linear one" in content(answer)["message"]
    assert ask(service, method="captum:DeepLift", target=1)[0].status == 200
    assert ask(service, method="gradcam", target=1)[0].status == 200


def test_an_archive_is_refused_where_captum_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ArchiveError, match=r"^explain\.captum: Captum cannot be .* `pip install captum` on the server"):
        small_service(tmp_path, {"explain": {"captum": NAMES}})


def test_an_archive_whose_network_does_not_suit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Small.forward
    monkeypatch.setattr(Small, "forward", lambda self, x: plain(self, torch.relu(x - 0.5)))
    with pytest.raises(ArchiveError, match=r"captum:Deconvolution.* 2 of this network's 3 .*in explain\.captum$"):
        small_service(tmp_path, {"explain": {"captum": ["Deconvolution"]}})


@pytest.mark.parametrize("value", ["LRP", ["DeepLift", 3], {"DeepLift": {}}, ["captum:DeepLift"]])
def test_other_names_are_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"explain\.captum is .*; a list is allowed, of: Saliency, "):
        read_settings({"explain": {"captum": value}}, {})


def test_one_name_is_a_list_and_a_default_method_may_be_one(tmp_path: Path) -> None:
    assert read_settings({"explain": {"captum": "DeepLift"}}, {}).captum == ("DeepLift",)
    made = small_service(tmp_path, {"explain": {"captum": ["Saliency"], "method": "captum:Saliency"}})
    answer = document(ask(made, target=1)[0])
    assert answer["explanations"][0]["method"] == "captum:Saliency" and json.dumps(answer)
