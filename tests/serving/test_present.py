"""`target: present` gives one map for each label whose probability is above the threshold, and works for no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from heatserve.engine import Explainer, Query
from heatserve.serving.service import Row, Service
from tests.serving.small import Small, picture
from tests.serving.test_activation import EXPLAIN, OneLogit, archive, ask, by_hand, scores_of, several

LABELS = tuple(f"finding {index}" for index in range(14))
NETWORKS = ("Fourteen", "Deep")
SENT = [picture(seed=seed) for seed in range(4)]


class Fourteen(Small):
    """`Small` with the scores of 14 labels, far apart."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 14)
        nn.init.normal_(self.linear.weight, std=0.6, generator=torch.Generator().manual_seed(8))
        nn.init.normal_(self.linear.bias, std=0.5, generator=torch.Generator().manual_seed(9))


class Deep(Fourteen):
    """`Fourteen` with a head that is not linear, so that each score needs a backward pass of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear((self.pool(self.trunk(x)).flatten(1) / 4).tanh())
        return found


def explained(network: str, sent: bytes, threshold: float) -> list[int]:
    """The labels that are present by the network's own scores, the likeliest first."""
    likely = scores_of(sent, {"Fourteen": Fourteen, "Deep": Deep}[network]).sigmoid()
    return [index for index in likely.argsort(descending=True).tolist() if likely[index] > threshold][:10]


@pytest.fixture(scope="module", params=NETWORKS)
def labels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Service]:
    folder = tmp_path_factory.mktemp("archive")
    explain = {"activation": "sigmoid", "layer": "trunk"}
    return request.param, archive(folder, explain, LABELS, request.param, __name__)


@contextmanager
def counted(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The numbers of forward and backward passes of the network."""
    passes = {"forward": 0, "backward": 0}
    backward = torch.autograd.grad

    def grad(*arguments: Any, **named: Any) -> Any:
        passes["backward"] += 1
        return backward(*arguments, **named)

    def forward(*_: Any) -> None:
        passes["forward"] += 1

    handle = service.explainer.model.register_forward_hook(forward)
    with monkeypatch.context() as patched:
        patched.setattr(torch.autograd, "grad", grad)
        yield passes
    handle.remove()


@pytest.mark.parametrize("threshold", [None, 0.6, 0.7, 0.0, 1.0])
def test_each_label_above_the_threshold_has_a_map_and_no_other(
    labels: tuple[str, Service], threshold: float | None
) -> None:
    network, service = labels
    given = {} if threshold is None else {"threshold": threshold}
    answers = several(service, [{"data": sent, "target": "present", **given} for sent in SENT])
    counts = set()
    for sent, answer in zip(SENT, answers):
        wanted = explained(network, sent, 0.5 if threshold is None else threshold)
        counts.add(len(wanted))
        assert [one["target"]["index"] for one in answer["explanations"]] == wanted
        assert [one["target"]["label"] for one in answer["explanations"]] == [LABELS[index] for index in wanted]
        assert len(answer["predictions"]) == 5
    assert len(counts) > 1 or threshold in (0.0, 0.6, 1.0)  # the pictures differ, or the test would show little


def test_at_most_ten_labels_have_a_map(labels: tuple[str, Service]) -> None:
    network, service = labels
    (answer,) = several(service, [{"data": SENT[0], "target": "present", "threshold": 0}])
    assert len(answer["explanations"]) == 10 == len(explained(network, SENT[0], 0))


def test_each_map_is_that_of_its_own_label(labels: tuple[str, Service]) -> None:
    """The oracle differentiates each label's score by itself. One picture of a mixed batch asks for all labels."""
    network, service = labels
    sent = {"datatype": "BYTES", "shape": [1], "data": [base64.b64encode(SENT[1]).decode()]}
    body = {"inputs": [sent], "parameters": {"target": "present", "threshold": 0.3}, "explain": True}
    rows = [Row("other", {"data": SENT[0]}, EXPLAIN), Row("a", {"body": body}, EXPLAIN)]
    reply = service.call(rows)
    found = json.loads(reply.answers["a"].body)["outputs"]
    heat = next(output for output in found if output["name"] == "heatmap")
    maps = torch.tensor(heat["data"]).reshape(heat["shape"])
    wanted = explained(network, SENT[1], 0.3)
    assert len(maps) == len(wanted) > 1
    tanh = network == "Deep"
    for one, index in zip(maps, wanted):
        assert_close(one, _by_hand(SENT[1], index, tanh), atol=1e-4, rtol=1e-3)


def _by_hand(sent: bytes, index: int, tanh: bool) -> torch.Tensor:
    net = Deep if tanh else Fourteen
    return by_hand(sent, lambda scores: scores[index], net, (lambda pooled: (pooled / 4).tanh()) if tanh else None)


@pytest.mark.fast_path
def test_all_labels_take_one_forward_pass_and_no_backward_pass_for_those_that_are_absent(
    labels: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, service = labels
    with counted(service, monkeypatch) as passes:
        (answer,) = several(service, [{"data": SENT[1], "target": "present"}])
    present = len(answer["explanations"])
    assert 0 < present < 10
    assert passes == {"forward": 1, "backward": present if network == "Deep" else 0}


def test_no_label_above_the_threshold_is_an_answer_without_maps(labels: tuple[str, Service]) -> None:
    _, service = labels
    for options in ({}, {"overlay": True, "boxes": True}, {"method": "gradient"}, {"samples": 3}):
        body = {"data": SENT[0], "target": "present", "threshold": 1, **options}
        status, answer = ask(service, body, EXPLAIN)
        assert status == 200 and answer["explanations"] == [] and len(answer["predictions"]) == 5
        assert "under_way" not in answer and not service.loop.busy


def test_the_draws_of_labels_that_are_absent_are_not_taken(
    labels: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, service = labels
    taken = []
    advance = Explainer.advance

    def counting(explainer: Explainer, shares: Any) -> Any:
        taken.extend((smoothing.query.target, count) for smoothing, count in shares)
        return advance(explainer, shares)

    monkeypatch.setattr(Explainer, "advance", counting)
    (answer,) = several(service, [{"data": SENT[1], "target": "present", "method": "smoothgrad", "samples": 4}])
    wanted = explained(network, SENT[1], 0.5)
    assert [one["target"]["index"] for one in answer["explanations"]] == wanted
    assert all(one["quality"]["samples_used"] == 4 for one in answer["explanations"])
    assert {target: sum(n for t, n in taken if t == target) for target, _ in taken} == dict.fromkeys(wanted, 4)


def test_each_smoothed_map_is_that_of_the_same_label_asked_for_alone(labels: tuple[str, Service]) -> None:
    _, service = labels
    options = {"data": SENT[1], "method": "smoothgrad", "samples": 4}
    together, alone = several(service, [{**options, "target": "present"}, {**options, "target": "top1"}])
    first = together["explanations"][0]
    assert first["target"] == alone["explanations"][0]["target"]
    assert first["heatmap"]["scale"] == pytest.approx(alone["explanations"][0]["heatmap"]["scale"], rel=1e-4)


@pytest.mark.parametrize("output", ["png", "webp", "jpeg", "npy"])
def test_a_picture_of_the_present_labels_needs_exactly_one(labels: tuple[str, Service], output: str) -> None:
    network, service = labels
    likely = scores_of(SENT[1], {"Fourteen": Fourteen, "Deep": Deep}[network]).sigmoid().sort(descending=True).values
    between = float(likely[:2].mean())
    body = {"data": SENT[1], "target": "present", "output": output}
    status, found = ask(service, {**body, "threshold": between}, EXPLAIN)
    assert status == 200 and isinstance(found, bytes)
    for threshold, said in ((1, "none is"), (float(likely[1:3].mean()), "2 labels are")):
        status, found = ask(service, {**body, "threshold": threshold}, EXPLAIN)
        assert status == 400 and said in found["message"] and "ask for json" in found["message"]


@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_present_is_refused_where_no_label_is_by_itself(tmp_path: Path, activation: str) -> None:
    service = archive(tmp_path, {"activation": activation}, LABELS, "Fourteen", __name__)
    status, found = ask(service, {"data": SENT[0], "target": "present"}, EXPLAIN)
    assert status == 400 and "explain: {activation: sigmoid}" in found["message"] and activation in found["message"]


def test_the_threshold_without_present_labels_is_refused_and_an_archive_may_set_it(tmp_path: Path) -> None:
    service = archive(tmp_path, {"activation": "sigmoid", "threshold": 0.2}, LABELS, "Fourteen", __name__)
    status, found = ask(service, {"data": SENT[1], "threshold": 0.4}, EXPLAIN)
    assert status == 400 and "threshold" in found["message"]
    (answer,) = several(service, [{"data": SENT[1], "target": "present"}])
    assert [one["target"]["index"] for one in answer["explanations"]] == explained("Fourteen", SENT[1], 0.2)


def test_the_samples_of_ten_labels_are_counted(labels: tuple[str, Service]) -> None:
    _, service = labels
    asked = {"data": SENT[0], "target": "present", "method": "smoothgrad"}
    status, found = ask(service, {**asked, "samples": 50}, EXPLAIN)
    assert status == 413 and "counts as 10 targets" in found["message"]
    status, found = ask(service, asked, EXPLAIN)
    assert status == 200 and {one["parameters"]["samples"] for one in found["explanations"]} == {20}


@pytest.mark.parametrize("sent", SENT)
def test_the_absence_of_one_label_is_no_label(tmp_path: Path, sent: bytes) -> None:
    service = archive(tmp_path, {"activation": "sigmoid"}, ["pneumonia"], "OneLogit")
    likely = float(scores_of(sent, OneLogit).sigmoid())
    for threshold, count in ((likely - 0.01, 1), (likely + 0.01, 0)):
        if 0 <= threshold <= 1:
            _, answer = ask(service, {"data": sent, "target": "present", "threshold": threshold}, EXPLAIN)
            assert [one["target"]["label"] for one in answer["explanations"]] == ["pneumonia"] * count


def test_least_is_a_probability_and_needs_run() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Query(least=1.5)
    assert Query(least=0.5).at(3) == Query(target=3) and Query(target=2, least=0.5).at(3) == Query(target=2)
    net = Explainer(Fourteen().eval(), torch.rand(2, 3, 32, 32), activation="sigmoid")
    with pytest.raises(ValueError, match="least"):
        net.explain(torch.rand(2, 3, 32, 32), Query(least=0.5))


def test_pictures_without_a_label_leave_the_maps_of_the_others_to_their_pictures(labels: tuple[str, Service]) -> None:
    """In the second protocol each map names its picture, and an answer without a map still has an output."""
    _, service = labels
    data = [base64.b64encode(sent).decode() for sent in SENT[:2]]
    inputs = [
        {"datatype": "BYTES", "shape": [1], "data": [one], "parameters": {"target": "present", "threshold": threshold}}
        for one, threshold in zip(data, (1, 0))
    ]
    _, answer = ask(service, {"body": {"inputs": inputs, "explain": True}}, EXPLAIN)
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["heatmap"]["shape"][0] == 10 and outputs["heatmap_instance"]["data"] == [1] * 10
    assert json.loads(outputs["prediction"]["data"][0])["explanations"] == []
    body = {"inputs": inputs[:1], "outputs": [{"name": "heatmap"}], "explain": True}
    _, answer = ask(service, {"body": body}, EXPLAIN)
    assert [output["name"] for output in answer["outputs"]] == ["prediction"]
