"""Archives whose answers are not a softmax: several labels at once, one label and its absence, a value."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision import transforms

from heatserve.serving import settings, start
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.service import Row, Service
from tests.serving.small import CONFIG, Small, picture, unpacked


class OneLogit(Small):
    """`Small` with one score."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 1)
        nn.init.normal_(self.linear.weight, std=0.5, generator=torch.Generator().manual_seed(5))
        nn.init.zeros_(self.linear.bias)


LABELS = ("cat", "dog", "crane", "heron", "bear", "fox")

PREDICT: dict[str, Any] = {"content-length": "1", "explain": "False", "url_path": ""}
EXPLAIN: dict[str, Any] = {"content-length": "1", "explain": "True", "url_path": ""}
VIEW = transforms.Compose(
    [
        transforms.Resize(36),
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


def ask(service: Service, body: dict[str, Any], headers: dict[str, Any]) -> tuple[int, Any]:
    """The status and the body of one row's answer; JSON is parsed."""
    rows = [Row("a", body, headers)]
    reply = service.call(rows)
    while reply.left:
        reply = reply.then(service.call(rows))
    answer = reply.answers["a"]
    found = answer.body
    return answer.status, json.loads(found) if isinstance(found, bytes) and found[:1] == b"{" else found


def archive(
    folder: Path,
    explain: dict[str, Any],
    labels: Sequence[str] = LABELS,
    network: str = "Small",
    module: str = __name__,
) -> Service:
    """The service of an archive that holds a network of a module, with labels of its own."""
    manifest = unpacked(folder)
    manifest["heatserve"]["architecture"] = f"{module}:{network}"
    (folder / "index_to_name.json").write_text(json.dumps({str(index): name for index, name in enumerate(labels)}))
    config = {**CONFIG, "explain": {"optimize": False, **explain}}
    return start.service(folder, manifest, settings.read_settings(config, {}), torch.device("cpu"))


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return archive(tmp_path_factory.mktemp("archive"), {"activation": "sigmoid"})


@pytest.fixture(scope="module")
def one_label(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return archive(tmp_path_factory.mktemp("archive"), {"activation": "sigmoid"}, ["pneumonia"], "OneLogit")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return archive(tmp_path_factory.mktemp("archive"), {"activation": "none"})


def seen(sent: bytes) -> torch.Tensor:
    """The view of a picture, by torchvision's transforms, (1, C, H, W)."""
    return VIEW(Image.open(io.BytesIO(sent)).convert("RGB"))[None]


def scores_of(sent: bytes, network: type[Small] = Small) -> torch.Tensor:
    """The network's own scores of a picture, (classes)."""
    return network().eval()(seen(sent))[0].detach()


def by_hand(
    sent: bytes,
    score: Callable[[torch.Tensor], torch.Tensor],
    network: type[Small] = Small,
    before_linear: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Grad-CAM by its definition on the model's view, (32, 32): `ReLU(sum_k mean(dy/dA_k) A_k)`.

    score: gives the explained y of the network's scores, (classes).
    """
    net = network().eval()
    activations = net.trunk(seen(sent)).detach().requires_grad_()
    pooled = activations.mean((2, 3))
    y = score(net.linear(before_linear(pooled) if before_linear else pooled)[0])
    (gradients,) = torch.autograd.grad(y, activations)
    small = (gradients.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu().detach()
    return nn.functional.interpolate(small, (32, 32), mode="bilinear", align_corners=False)[0, 0]


def maps(service: Service, sent: bytes, **options: Any) -> torch.Tensor:
    """The maps on the model's view in float32, as `output: npy` gives them."""
    status, found = ask(service, {"data": sent, "output": "npy", **options}, EXPLAIN)
    assert status == 200, found
    return torch.from_numpy(np.load(io.BytesIO(found)))


def several(service: Service, bodies: Sequence[dict[str, Any]]) -> list[Any]:
    """The JSON answers of explanations that share a batch."""
    rows = [Row(str(number), body, EXPLAIN) for number, body in enumerate(bodies)]
    reply = service.call(rows)
    while reply.left:
        reply = reply.then(service.call(reply.unanswered(rows)))
    assert all(reply.answers[row.id].status == 200 for row in rows), reply.answers
    return [json.loads(reply.answers[row.id].body) for row in rows]


def test_a_multi_label_prediction_lists_labels_by_the_sigmoid_of_their_scores(multi_label: Service) -> None:
    status, found = ask(multi_label, {"data": picture()}, PREDICT)
    expected = scores_of(picture()).sigmoid()
    assert status == 200
    order = expected.argsort(descending=True)[:5].tolist()
    assert [*found] == [LABELS[index] for index in order]
    assert found[LABELS[order[0]]] == pytest.approx(float(expected[order[0]]), abs=1e-5)


def test_a_multi_label_explanation_answers_with_the_sigmoid(multi_label: Service) -> None:
    status, found = ask(multi_label, {"data": picture(), "target": "2"}, EXPLAIN)
    assert status == 200
    assert found["explanations"][0]["target"]["probability"] == pytest.approx(
        float(scores_of(picture()).sigmoid()[2]), abs=1e-5
    )


def test_a_multi_label_answer_names_its_activation(multi_label: Service) -> None:
    _, found = ask(multi_label, {"data": picture()}, EXPLAIN)
    _, described = ask(multi_label, {}, {**EXPLAIN, "url_path": "describe"})
    assert found["model"]["activation"] == described["model"]["activation"] == "sigmoid"


def test_one_logit_answers_with_its_label_and_the_absence_of_it(one_label: Service) -> None:
    status, found = ask(one_label, {"data": picture()}, PREDICT)
    present = float(scores_of(picture(), OneLogit).sigmoid())
    assert status == 200 and found == pytest.approx({"pneumonia": present, "not pneumonia": 1 - present}, abs=1e-5)
    assert [*found.values()] == sorted(found.values(), reverse=True)


@pytest.mark.parametrize(("label", "sign"), [("pneumonia", 1), ("not pneumonia", -1)])
def test_a_map_of_one_logit_is_of_the_score_or_of_its_negative(one_label: Service, label: str, sign: int) -> None:
    found = maps(one_label, picture(), target=label)
    assert_close(found, by_hand(picture(), lambda scores: sign * scores[0], OneLogit), atol=1e-4, rtol=1e-4)
    _, answer = ask(one_label, {"data": picture(), "target": label}, EXPLAIN)
    target = answer["explanations"][0]["target"]
    assert target["label"] == label and target["index"] == (sign + 1) // 2
    assert target["score"] == pytest.approx(sign * float(scores_of(picture(), OneLogit)), abs=1e-4)


def test_two_labels_of_one_logit_are_used_as_they_are(tmp_path: Path) -> None:
    service = archive(tmp_path, {"activation": "sigmoid"}, ["healthy", "ill"], "OneLogit")
    _, found = ask(service, {"data": picture()}, PREDICT)
    assert found["ill"] == pytest.approx(float(scores_of(picture(), OneLogit).sigmoid()), abs=1e-5)
    assert found["healthy"] == pytest.approx(1 - found["ill"], abs=1e-5)


def test_one_logit_without_labels_has_the_classes_0_and_1(tmp_path: Path) -> None:
    manifest = unpacked(tmp_path)
    manifest["heatserve"]["architecture"] = f"{__name__}:OneLogit"
    (tmp_path / "index_to_name.json").unlink()
    config = {**CONFIG, "explain": {"optimize": False, "activation": "sigmoid"}}
    service = start.service(tmp_path, manifest, settings.read_settings(config, {}), torch.device("cpu"))
    _, found = ask(service, {"data": picture()}, PREDICT)
    assert found["1"] == pytest.approx(float(scores_of(picture(), OneLogit).sigmoid()), abs=1e-5)


@pytest.mark.parametrize(("labels", "network"), [(["a", "b", "c"], "OneLogit"), (["a"], "Small")])
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: list[str], network: str) -> None:
    with pytest.raises(ArchiveError, match=r"index_to_name\.json must name"):
        archive(tmp_path, {"activation": "sigmoid"}, labels, network)


def test_a_regression_lists_its_values(values: Service) -> None:
    status, found = ask(values, {"data": picture()}, PREDICT)
    expected = scores_of(picture())
    order = expected.argsort(descending=True)[:5].tolist()
    assert status == 200 and [*found] == [LABELS[index] for index in order]
    assert [*found.values()] == pytest.approx(expected[order].tolist(), abs=1e-4)


def test_the_target_of_a_regression_has_a_value_and_no_probability(values: Service) -> None:
    _, found = ask(values, {"data": picture(), "target": "top2"}, EXPLAIN)
    expected = scores_of(picture())
    order = expected.argsort(descending=True).tolist()
    entries = [*found["predictions"], *(one["target"] for one in found["explanations"])]
    assert all("probability" not in entry for entry in entries) and found["model"]["activation"] == "none"
    assert [entry["value"] for entry in entries] == pytest.approx(expected[[*order[:5], *order[:2]]].tolist(), abs=1e-4)
    assert [one["target"]["index"] for one in found["explanations"]] == order[:2]


def test_a_map_of_a_regression_is_of_the_value(values: Service) -> None:
    for index in (0, 4):
        found = maps(values, picture(), target=str(index))
        assert_close(found, by_hand(picture(), lambda scores, at=index: scores[at]), atol=1e-4, rtol=1e-4)


def test_rows_of_a_mixed_batch_answer_with_their_own_values(values: Service) -> None:
    sent = [picture(seed=seed) for seed in range(3)]
    answers = several(values, [{"data": one, "target": str(row)} for row, one in enumerate(sent)])
    for row, (one, answer) in enumerate(zip(sent, answers)):
        assert answer["explanations"][0]["target"]["value"] == pytest.approx(float(scores_of(one)[row]), abs=1e-4)
        heat = answer["explanations"][0]["heatmap"]["scale"]
        shown = by_hand(one, lambda scores, at=row: scores[at])
        assert heat == pytest.approx(float(shown.max()), rel=0.05)


def test_the_headers_of_a_picture_name_the_number_and_the_activation(values: Service, multi_label: Service) -> None:
    found = {}
    for name, service in (("value", values), ("probability", multi_label)):
        row = Row("a", {"data": picture(), "output": "png"}, EXPLAIN)
        found[name] = service.call([row]).answers["a"].headers
    best = scores_of(picture()).max()
    assert float(found["value"]["X-Prediction-Value"]) == pytest.approx(float(best), rel=1e-4)
    assert float(found["probability"]["X-Prediction-Probability"]) == pytest.approx(float(best.sigmoid()), rel=1e-4)
    assert found["value"]["X-Prediction-Activation"] == "none" and "X-Prediction-Probability" not in found["value"]
    assert found["probability"]["X-Prediction-Activation"] == "sigmoid"
