"""The packager with a handler of a few lines in the place of the real one."""

import json
import zipfile

import pytest
import torch
from click.testing import CliRunner

from devtools import archive
from devtools.package import main
from devtools.packager import MANIFEST, Recipe, members, package
from devtools.refusal import Refusal
from heatserve.serving.integrity import contents_sha256

MODEL = "import torch\n\n\nclass Net(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"

HANDLER = """
import os, sys, tempfile
from PIL import Image
from heatserve import ANSWER
import io, model, torch

class Handler:
    def initialize(self, context):
        assert not any("devtools" in path for path in sys.path)
        net = model.Net()
        state = context.manifest["model"]["serializedFile"]
        net.load_state_dict(torch.load(state, weights_only=True))
    def handle(self, data, context):
        answers = []
        for row, part in enumerate(data):
            if context.get_request_header(row, "url_path") == "describe":
                answers.append({"methods": ["gradcam"]})
                continue
            Image.open(io.BytesIO(part["body"])).load()
            if context.get_request_header(row, "explain") == "True":
                answers.append({"explanations": [{"parameters": {"layer": "fc"}}]})
            else:
                answers.append({"cat": 0.75, "dog": 0.25})
            answers, extra = ANSWER(answers, row, context), None
        return answers
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe that works, with the stub handler."""
    (tmp_path / "handlers" / "heatserve").mkdir(parents=True)
    (tmp_path / "handlers" / "explain_handler.py").write_text(HANDLER)
    (tmp_path / "handlers" / "heatserve" / "__init__.py").write_text(
        '__version__ = "9.9"\nMETHODS = {"gradcam": 1}\ndef ANSWER(answers, row, context): return answers\n'
    )
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (tmp_path / "settings.yaml").write_text("batchSize: 2\n")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    return Recipe(
        "net",
        f"{tmp_path / 'model.py'}:Net",
        tmp_path / "weights.pth",
        tmp_path / "labels.txt",
        tmp_path / "settings.yaml",
        handlers=tmp_path / "handlers",
    )


def failing(recipe, line):
    """The recipe with a stub handler that goes wrong."""
    init = recipe.handlers / "heatserve" / "__init__.py"
    init.write_text(init.read_text().replace("return answers", line))
    return recipe


def test_the_manifest_says_what_torchserve_and_heatserve_read(recipe, tmp_path):
    contents = members(recipe)
    manifest = json.loads(contents[MANIFEST])
    assert manifest["runtime"] == "python"
    assert manifest["model"] == {
        "modelName": "net",
        "serializedFile": "weights.pth",
        "handler": "explain_handler.py",
        "modelFile": "model.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    }
    others = {name: content for name, content in contents.items() if name != MANIFEST}
    assert manifest["heatserve"] == {
        "version": "9.9",
        "architecture": "model:Net",
        "weights_sha256": archive.sha256(tmp_path / "weights.pth"),
        "members": {name: archive.sha256(content) for name, content in others.items()},
        "contents_sha256": contents_sha256(manifest),
    }
    assert json.loads(contents["index_to_name.json"]) == {"0": "cat", "1": "dog"}


def test_the_manifest_has_the_keys_that_torch_model_archiver_writes(recipe):
    manifest_module = pytest.importorskip("model_archiver.manifest_components.manifest")
    model_module = pytest.importorskip("model_archiver.manifest_components.model")
    model = model_module.Model("net", "weights.pth", "explain_handler.py", "model.py", "1.0")
    theirs = manifest_module.Manifest("python", model).manifest_dict
    ours = json.loads(members(recipe)[MANIFEST])
    assert ours.keys() - {"heatserve"} == theirs.keys()
    assert ours["archiverVersion"] == theirs["archiverVersion"]
    assert ours["model"].keys() - {"configFile"} == theirs["model"].keys()


def test_equal_inputs_give_equal_archives_and_force_replaces_one(recipe, tmp_path):
    first = package(recipe, tmp_path / "store")
    once = first.path.read_bytes()
    assert first.proof.prediction == {"cat": 0.75, "dog": 0.25}
    assert (first.proof.layer, first.proof.methods, first.unmet) == ("fc", ("gradcam",), ())
    with pytest.raises(Refusal, match="--force"):
        package(recipe, tmp_path / "store")
    assert package(recipe, tmp_path / "store", force=True).path.read_bytes() == once
    with zipfile.ZipFile(first.path) as written:
        assert {"explain_handler.py", "heatserve/__init__.py", "model.py", MANIFEST} < set(written.namelist())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("raise ValueError('secret')", "The handler failed"),
        ("return answers[:1]", "The handler failed"),
        (
            "context.set_response_status(400, 'Bad', row); return [{'message': 'no layer'}] * (row + 1)",
            "answered a prediction with 400: no layer",
        ),
        ("return ['text'] * (row + 1)", "not a JSON object"),
    ],
)
def test_an_archive_that_does_not_answer_is_refused_and_not_left(recipe, tmp_path, line, said):
    with pytest.raises(Refusal, match=said):
        package(failing(recipe, line), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_failed_replacement_leaves_the_archive_that_was_there(recipe, tmp_path):
    there = tmp_path / "net.mar"
    there.write_bytes(b"the old one")
    with pytest.raises(Refusal):
        package(failing(recipe, "raise ValueError"), tmp_path, force=True)
    assert there.read_bytes() == b"the old one"


def test_an_import_error_of_the_handler_is_said_as_it_is(recipe, tmp_path):
    (recipe.handlers / "explain_handler.py").write_text("import no_such_thing\n")
    with pytest.raises(Refusal, match="cannot be imported: No module named 'no_such_thing'"):
        package(recipe, tmp_path / "store")


def test_weights_of_another_model_are_refused_in_one_line(recipe, tmp_path):
    torch.save(torch.nn.Linear(3, 3).state_dict(), recipe.weights)
    with pytest.raises(Refusal, match=r"does not load: .*size mismatch") as refusal:
        package(recipe, tmp_path / "store")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["- a\n", "a: [\n"])
def test_a_configuration_that_is_no_mapping_is_refused(recipe, text):
    recipe.config.write_text(text)
    with pytest.raises(Refusal, match=r"settings\.yaml"):
        members(recipe)


def test_two_files_of_one_name_are_refused(recipe, tmp_path):
    (recipe.handlers / "model.py").write_text("")
    with pytest.raises(Refusal, match=r"would be called model\.py"):
        members(recipe)


def test_the_command_refuses_in_a_sentence_and_with_status_1(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    arguments = [
        "net",
        "--architecture",
        "torchvision.models:resnet18",
        "--weights",
        str(tmp_path / "weights.pth"),
    ]
    result = CliRunner().invoke(main, [*arguments, "--export-path", str(tmp_path / "store")])
    assert result.exit_code == 1
    assert result.output.startswith("Refused: The weights weights.pth")
    assert "Traceback" not in result.output
    assert not (tmp_path / "store").exists()
