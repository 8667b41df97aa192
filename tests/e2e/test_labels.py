"""Against a real TorchServe: several labels at once, one label and its absence, and a value."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import torch
import yaml
from PIL import Image
from torch import nn
from torchvision import transforms

from heatserve.client import Client
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.packaging.packager import package
from heatserve_tools.packaging.recipe import Recipe
from heatserve_tools.torchserve.server import Server

pytestmark = pytest.mark.server

MODEL = '''
import torch
from torch import nn


class Net(nn.Module):
    """Two convolutions, pooling and one linear layer, with a sigmoid behind it or none."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.linear = nn.Linear(12, {outputs})

    def forward(self, x):
        scores = self.linear(self.trunk(x).mean((2, 3)))
        return {end}
'''
#: The outputs of each network, the last line of its forward, and its activation.
KINDS = {
    "chest": (14, "torch.sigmoid(scores)", "sigmoid"),
    "ill": (1, "scores", "sigmoid"),
    "age": (1, "scores", "none"),
}
FINDINGS = [f"finding {index}" for index in range(14)]
NAMES = {"chest": FINDINGS, "ill": ["pneumonia"], "age": ["age"]}
VIEW = transforms.Compose(
    [
        transforms.Resize(80),
        transforms.CenterCrop(64),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)
PICTURES = [content for _, content in sorted(photographs().items())]


def weights(outputs: int) -> dict[str, torch.Tensor]:
    """Weights whose scores lie on both sides of 0."""
    generator = torch.Generator().manual_seed(4)
    shapes = {"trunk.0": (8, 3, 3, 3), "trunk.2": (12, 8, 3, 3), "linear": (outputs, 12)}
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = 0.5 * torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=generator)
    return state


def scores(name: str, content: bytes) -> torch.Tensor:
    """The scores of a picture by torch and torchvision alone, (outputs)."""
    state = weights(KINDS[name][0])
    x = VIEW(Image.open(io.BytesIO(content)).convert("RGB"))[None]
    for layer in ("trunk.0", "trunk.2"):
        x = nn.functional.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], 2, 1).relu()
    return nn.functional.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("store")
    models = {}
    for name, (outputs, end, activation) in KINDS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "model.py").write_text(MODEL.replace("{outputs}", str(outputs)).replace("{end}", end))
        torch.save(weights(outputs), folder / "weights.pth")
        (folder / "labels.txt").write_text("\n".join(NAMES[name]) + "\n")
        config = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 4, "maxBatchDelay": 50}
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "preprocess": {"resize": 80, "crop": 64}}))
        recipe = Recipe(
            name,
            f"{folder / 'model.py'}:Net",
            folder / "weights.pth",
            folder / "labels.txt",
            folder / "config.yaml",
            activation=activation,
        )
        models[name] = package(recipe, store).path
    with Server(models) as running:
        yield running


def predict(server: Server, name: str, content: bytes) -> dict[str, float]:
    answer = requests.post(f"{server.inference}/predictions/{name}", data=content, timeout=120)
    assert answer.status_code == 200, answer.text
    found: dict[str, float] = answer.json()
    return found


def explain(server: Server, name: str, content: bytes, **options: Any) -> requests.Response:
    headers = {f"X-Explain-{option}": str(value) for option, value in options.items()}
    headers["Content-Type"] = "application/octet-stream"
    return requests.post(f"{server.inference}/explanations/{name}", data=content, headers=headers, timeout=120)


@pytest.mark.parametrize("content", PICTURES)
def test_fourteen_labels_are_listed_by_their_own_probability(server: Server, content: bytes) -> None:
    found, expected = predict(server, "chest", content), scores("chest", content).sigmoid()
    order = expected.argsort(descending=True)[:5].tolist()
    assert [*found] == [FINDINGS[index] for index in order]
    assert [*found.values()] == pytest.approx(expected[order].tolist(), abs=1e-4)


@pytest.mark.parametrize("content", PICTURES)
def test_each_label_that_is_present_has_a_map(server: Server, content: bytes) -> None:
    expected = scores("chest", content).sigmoid()
    threshold = float(expected.median()) + 1e-3
    wanted = [index for index in expected.argsort(descending=True).tolist() if expected[index] > threshold]
    result = Client(server.inference, "chest").explain(content, target="present", threshold=threshold)
    assert [found.target.index for found in result.explanations] == wanted and len(wanted) > 1
    for found in result.explanations:
        assert found.target.probability == pytest.approx(float(expected[found.target.index]), abs=1e-4)
        # The network's own sigmoid is left out: the score is the number before it.
        assert found.score == pytest.approx(float(scores("chest", content)[found.target.index]), abs=1e-3)
        assert found.answer["parameters"]["layout_proved"] is True
    assert result.model["activation"] == "sigmoid"


def test_no_label_is_an_answer_and_a_picture_of_none_is_refused(server: Server) -> None:
    result = Client(server.inference, "chest").explain(PICTURES[0], target="present", threshold=1)
    assert result.explanations == () and len(result.predictions) == 5
    refused = explain(server, "chest", PICTURES[0], Target="present", Threshold=1, Output="png")
    assert refused.status_code == 400 and "ask for json" in refused.json()["message"]


@pytest.mark.parametrize("content", PICTURES)
def test_one_logit_is_its_label_and_the_absence_of_it(server: Server, content: bytes) -> None:
    present = float(scores("ill", content).sigmoid())
    found = predict(server, "ill", content)
    assert found == pytest.approx({"pneumonia": present, "not pneumonia": 1 - present}, abs=1e-4)
    result = Client(server.inference, "ill").explain(content, target="not pneumonia")
    assert result.explanation.target.index == 0
    assert result.explanation.score == pytest.approx(-float(scores("ill", content)), abs=1e-3)


@pytest.mark.parametrize("content", PICTURES)
def test_a_regression_answers_with_its_value(server: Server, content: bytes) -> None:
    value = float(scores("age", content))
    assert predict(server, "age", content) == pytest.approx({"age": value}, abs=1e-3)
    result = Client(server.inference, "age").explain(content)
    assert result.predictions[0].value == pytest.approx(value, abs=1e-3)
    assert result.predictions[0].probability is None and result.model["activation"] == "none"
    picture = explain(server, "age", content, Output="png")
    assert picture.headers["X-Prediction-Activation"] == "none"
    assert float(picture.headers["X-Prediction-Value"]) == pytest.approx(value, abs=1e-3)
    refused = explain(server, "age", content, Target="present")
    assert refused.status_code == 400 and "sigmoid" in refused.json()["message"]


def test_describe_names_the_activation_and_the_layout(server: Server) -> None:
    for name, (*_, activation) in KINDS.items():
        described = Client(server.inference, name).describe()
        assert described["model"]["activation"] == activation
        assert all(found["layout_proved"] for found in described["layouts"].values())
