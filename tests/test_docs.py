"""The how-tos: their examples and commands work, and their tables are the code's."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import timm
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
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import state_dict
from tests.shell import run

#: The scripts of a checkout that are not a command of `heatserve`.
SCRIPTS = ("setup", "check", "test", "bench", "fuzz", "release")
#: A file that a reader writes.
OWN_PACKAGES = "requirements/own.txt"
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


def test_the_layers_that_the_how_to_names_for_vision_transformers_are_found_by_themselves() -> None:
    text = (ROOT / "docs" / "bring-a-model.md").read_text(encoding="utf-8")
    torch.manual_seed(0)
    ours = timm.create_model("deit_tiny_patch16_224", num_classes=10)
    theirs = torchvision.models.VisionTransformer(64, 8, 12, 2, 32, 64, num_classes=10)
    torch.nn.init.normal_(theirs.heads.head.weight, std=0.02)
    for network, side in ((ours, 224), (theirs, 64)):
        explainer = Explainer(network.eval(), torch.rand(1, 3, side, side))
        assert f"`{explainer.layer}`" in text


def test_the_line_of_the_how_to_makes_weights_of_a_training_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (lines,) = (block for block in blocks("bring-a-model.md", "python") if block.startswith("import torch\n"))
    network = torchvision.models.resnet18(num_classes=7)
    torch.save({"model": network.state_dict(), "args": argparse.Namespace(lr=0.1)}, "run.pth")
    with pytest.raises(ToolError) as refusal:
        state_dict.for_archive(Path("run.pth"))
    assert lines.split() == " ".join(str(refusal.value).splitlines()[1:]).split()
    exec(lines, {})
    assert torch.load("weights.pth").keys() == network.state_dict().keys()


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
        if first != "model_store" and path != OWN_PACKAGES and any((root / first).is_dir() for root in roots):
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


@pytest.mark.parametrize("form", ["state dict", "TorchScript"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_an_archive_of_torch_model_archiver_is_taken_over_by_the_lines_of_the_how_to(form: str, tmp_path: Path) -> None:
    network = torchvision.models.resnet18(num_classes=7).eval()
    (tmp_path / "model.py").write_text(NET)
    (tmp_path / "index_to_name.json").write_text(json.dumps({str(index): f"bird {index}" for index in range(7)}))
    given = ["--serialized-file", "weights.pt", "--extra-files", "index_to_name.json"]
    if form == "state dict":
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        given += ["--model-file", "model.py"]
    else:
        torch.jit.script(network).save(tmp_path / "weights.pt")
    archiver = str(Path(sys.executable).with_name("torch-model-archiver"))
    (tmp_path / "tmp").mkdir()
    subprocess.run(
        [archiver, "--model-name", "old", "--version", "1.0", "--handler", "image_classifier", *given],
        check=True,
        cwd=tmp_path,
        env={"TMPDIR": str(tmp_path / "tmp"), "PATH": "/usr/bin:/bin"},
    )
    (lines,) = blocks("migrate.md", "bash")
    packaged, inspected = (run(line, tmp_path) for line in lines.splitlines())
    assert "old.mar was served by image_classifier" in packaged and "bird" in packaged
    assert ("gradcam" in packaged) == (form == "state dict") and "birds.mar" in inspected


def test_the_configuration_of_the_migration_is_accepted() -> None:
    (config,) = blocks("migrate.md", "yaml")
    assert read_settings(yaml.safe_load(config), {}).preprocess.view == (320, 320)


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
