"""The how-tos: their examples and commands work, and their tables are the code's."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from pytorch_grad_cam import GradCAMElementWise
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from devtools.paths import HANDLERS, ROOT
from heatserve.engine import METHODS, Explainer, Query, registry
from heatserve.serving.errors import STATUSES
from heatserve.serving.metrics import DECLARED
from heatserve.serving.settings import ENVIRONMENT_PREFIX, Limits, read_settings
from heatserve_tools.command import heatserve
from heatserve_tools.packaging import state_dict
from tests.shell import run

#: The scripts of a checkout that are not a command of `heatserve`.
SCRIPTS = ("setup", "check", "test", "bench", "fuzz", "release")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
#: The model file of an archive that TorchServe's own handlers serve.
NET = """
from torchvision.models.resnet import BasicBlock, ResNet

class Net(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=7)
"""


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def written() -> Iterator[None]:
    """The methods of the how-to are in the registry during a test."""
    before = dict(METHODS)
    names: dict[str, object] = {}
    for block in blocks("write-a-method.md", "python"):
        exec(block, names)
    yield
    registry._methods.clear()
    registry._methods.update(before)


@pytest.mark.usefixtures("written")
def test_draws_written_by_the_how_to_give_the_scores_of_the_squares_of_a_linear_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 48, 4, bias=False))
    images = torch.randn(2, 3, 32, 48)
    products = (model[1].weight.detach()[1].reshape(3, 32, 48) * images).sum(1)
    expected = products.unflatten(1, (8, 4)).unflatten(3, (8, 6)).sum((2, 4))
    for answer, scores in zip(Explainer(model, images, chunk=5).explain(images, Query("squares", target=1)), expected):
        assert torch.allclose(answer.map, scores.repeat_interleave(4, 0).repeat_interleave(6, 1), atol=1e-5)


@pytest.mark.usefixtures("written")
def test_a_method_written_by_the_how_to_gives_what_pytorch_grad_cam_gives() -> None:
    torch.manual_seed(0)
    model = torchvision.models.vgg11(num_classes=10).eval()
    images = torch.rand(2, 3, 64, 64)
    with GradCAMElementWise(model=model, target_layers=[model.features]) as theirs:
        theirs.uses_gradients = True
        targets = [ClassifierOutputTarget(3), ClassifierOutputTarget(3)]
        expected = torch.from_numpy(theirs(images, targets=targets))
    answers = Explainer(model, images).explain(images, Query("elementwise", target=3))
    for answer, one in zip(answers, expected):
        found = torch.nn.functional.interpolate(answer.map[None, None], one.shape, mode="bilinear")[0, 0]
        correlation = torch.corrcoef(torch.stack([found.flatten(), one.flatten()]))[0, 1]
        assert correlation > 0.99 or (one.max() == 0 and found.max() == 0)


def test_the_configuration_of_the_how_to_is_accepted() -> None:
    (config,) = blocks("bring-a-model.md", "yaml")
    settings = read_settings(yaml.safe_load(config), {})
    assert settings.layers == ("layer4",) and settings.limits == Limits()


def test_the_vision_transformer_of_the_how_to_has_a_map_and_the_same_scores_and_names() -> None:
    """The network without the map is the reference."""
    file = next(block for block in blocks("bring-a-model.md", "python") if block.startswith("# vit.py"))
    names: dict[str, Any] = {}
    exec(file, names)
    torch.manual_seed(0)
    changed, plain = names["model"]().eval(), torchvision.models.vit_b_16().eval()
    plain.load_state_dict(changed.state_dict())
    images = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(changed(images), plain(images))
    torch.nn.init.normal_(changed.heads.head.weight, std=0.02)
    text = (ROOT / "docs" / "bring-a-model.md").read_text(encoding="utf-8")
    layers = re.findall(r"`explain: {layer: (\S+)}`", text)
    explainer = Explainer(changed, images, layers)
    (answer, _) = explainer.explain(images, Query("gradcam"))
    assert answer.map.shape == (14, 14) and answer.map.max() > 0


def test_the_checkpoints_of_the_how_to_become_weights_that_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "bring-a-model.md").read_text(encoding="utf-8")
    nested, parallel = re.findall(r"`(torch\.save\(.*, \"weights\.pth\"\))`", text)
    network = torchvision.models.resnet18(num_classes=7)
    torch.save({"model": network.state_dict(), "epoch": 3}, "checkpoint.pth")
    exec(nested, {"torch": torch})
    assert torch.load("weights.pth").keys() == network.state_dict().keys()
    exec(parallel, {"torch": torch, "state": torch.nn.DataParallel(network).state_dict()})
    assert torch.load("weights.pth").keys() == network.state_dict().keys()
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, "whole.pth")
    assert state_dict.for_archive(tmp_path / "whole.pth").name == "whole.pth"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_a_document_is_there_and_takes_the_options_that_it_is_given(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for line in re.findall(r"(?:^|`)(?:\w+=\S+ )?((?:heatserve|scripts/)[a-z ][^`\n]*)", text, re.MULTILINE):
        name, _, rest = line.removeprefix("heatserve ").removeprefix("scripts/").partition(" ")
        if line.startswith("scripts/"):
            assert (ROOT / "scripts" / name).is_file(), line
        command = heatserve.get_command(click.Context(heatserve), name)
        if command is not None:
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert set(re.findall(r"(?<= )--?[a-z-]+", f" {rest}")) <= known, line
        else:
            assert line.startswith("scripts/") and name in SCRIPTS, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(document: str) -> None:
    text = re.sub(r"https?://\S+", "", (ROOT / document).read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#\s]+)", text)
    assert all((ROOT / document).parent.joinpath(link).exists() for link in links), links
    # A path without its first folders begins in one of these.
    roots = (ROOT, HANDLERS / "heatserve", HANDLERS / "heatserve" / "serving")
    for path in re.findall(r"(?<![\w/.:{}$-])[A-Za-z_.][\w.-]*(?:/[\w.-]+)+", re.sub(r"\]\([^)]*\)", "", text)):
        first = path.split("/")[0]
        if first != "model_store" and any((root / first).is_dir() for root in roots):
            assert any((root / path.rstrip(".")).exists() for root in roots), path


@pytest.mark.filterwarnings("ignore:the model is frozen")
def test_the_notebook_of_the_how_to_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3)
    torch.save(network.state_dict(), "weights.pth")
    Path("photographs").mkdir()
    for number, name in enumerate(("photo.jpg", "photographs/a.png", "photographs/b.png")):
        noise = torch.rand(12, 16, 3, generator=torch.Generator().manual_seed(number)).mul(255).byte().numpy()
        Image.fromarray(noise).resize((320, 240)).save(name)
    Path("photographs/c.png").write_bytes(b"no picture")
    names: dict[str, Any] = {}
    for block in blocks("notebook.md", "python"):
        exec(block, names)
    assert all(Image.open(f"{name}overlay.png").size == (320, 240) for name in ("", "a-", "b-"))
    assert [answer.label for answer in names["answers"]] == ["cat", "bird"]
    assert names["early"].attribution.values.shape == (14, 14) and names["both"].label in ("cat", "dog", "bird")
    assert all(parameter.requires_grad for parameter in names["model"].parameters()) and names["model"].training
    printed = capsys.readouterr()
    assert "layer4 (512, 7, 7) nchw True" in printed.out and "is no picture" in printed.out
    assert "3 of 3 pictures" in printed.err


def test_the_parts_of_an_old_archive_are_packaged_by_the_lines_of_the_how_to(tmp_path: Path) -> None:
    weights = io.BytesIO()
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), weights)
    manifest = {"model": {"modelName": "old", "serializedFile": "weights.pth", "modelFile": "model.py"}}
    with zipfile.ZipFile(tmp_path / "old.mar", "w") as old:
        old.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        old.writestr("model.py", NET)
        old.writestr("weights.pth", weights.getvalue())
        old.writestr("index_to_name.json", json.dumps({str(index): f"bird {index}" for index in range(7)}))
    (lines,) = blocks("bring-a-model.md", "bash")
    for line in lines.splitlines():
        run(line, tmp_path)
    assert (tmp_path / "model_store" / "new.mar").is_file()


def test_the_metrics_table_is_the_codes() -> None:
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    rows = [f"| `{d.name}` | {d.kind} | {', '.join(d.dimensions)} | {d.summary} |" for d in DECLARED]
    table = re.search(r"<!-- metrics -->\n(.*?)<!-- /metrics -->", text, re.DOTALL)
    assert table is not None and table[1].splitlines()[2:] == rows


def test_every_limit_of_the_environment_is_in_the_operators_table() -> None:
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    for name in Limits.__dataclass_fields__:
        assert f"`{ENVIRONMENT_PREFIX}{name.upper()}`" in text


def test_the_statuses_are_the_codes() -> None:
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- statuses -->\n(.*?)<!-- /statuses -->", text, re.DOTALL)
    rows = [f"| {status} | {meaning} |" for status, (_, meaning) in STATUSES.items()]
    assert table is not None and table[1].splitlines()[2:] == rows


def test_every_threat_has_a_defence_and_every_defence_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- threats -->\n(.*?)<!-- /threats -->", text, re.DOTALL)
    assert table is not None
    there = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))
    for row in table[1].splitlines()[2:]:
        _, threat, defence, proofs, _ = row.split("|")
        named = re.findall(r"`(test_\w+)`", proofs)
        assert threat.strip() and defence.strip() and named, row
        assert all(f"def {name}(" in there for name in named), row


def test_every_test_that_the_protocols_name_is_there() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- proofs -->\n(.*?)<!-- /proofs -->", text, re.DOTALL)
    assert table is not None
    named = set(re.findall(r"`(test_\w+)`", table[1]))
    files = ("e2e/test_protocols.py", "serving/test_protocols.py")
    there = "".join((ROOT / "tests" / file).read_text(encoding="utf-8") for file in files)
    assert len(named) > 10 and all(f"def {name}(" in there for name in named), named
