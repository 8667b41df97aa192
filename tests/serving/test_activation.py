"""Archives whose answers are not a softmax: several labels at once, one label and its absence, a value."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import transforms

from heatserve.serving import settings, start
from heatserve.serving.service import Row, Service
from tests.serving.small import CONFIG, Small, picture, unpacked

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


def archive(folder: Path, explain: dict[str, Any], labels: Sequence[str] = LABELS, network: str = "Small") -> Service:
    """The service of an archive that holds a network of this module or `Small`, with labels of its own."""
    manifest = unpacked(folder)
    manifest["heatserve"]["architecture"] = f"{__name__}:{network}"
    (folder / "index_to_name.json").write_text(json.dumps({str(index): name for index, name in enumerate(labels)}))
    config = {**CONFIG, "explain": {"optimize": False, **explain}}
    return start.service(folder, manifest, settings.read_settings(config, {}), torch.device("cpu"))


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return archive(tmp_path_factory.mktemp("archive"), {"activation": "sigmoid"})


def scores_of(sent: bytes) -> torch.Tensor:
    """The network's own scores of a picture, by torchvision's transforms, (classes)."""
    return Small().eval()(VIEW(Image.open(io.BytesIO(sent)).convert("RGB"))[None])[0].detach()


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
