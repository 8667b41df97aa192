"""The packager with a handler of a few lines in the place of the real one."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from devtools.paths import ROOT
from heatserve.serving.integrity import contents_sha256
from heatserve_tools.errors import ToolError
from heatserve_tools.package import main
from heatserve_tools.packaging import mar
from heatserve_tools.packaging.packager import MANIFEST, Recipe, members, package

MODEL = "import torch\n\n\nclass Net(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"

HANDLER = """
import os, sys, tempfile
from PIL import Image
from heatserve import ANSWER
import io, model, torch

class Handler:
    def initialize(self, context):
        assert not any("heatserve_tools" in path for path in sys.path)
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
        activation="softmax",
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
        "weights_sha256": mar.sha256(tmp_path / "weights.pth"),
        "members": {name: mar.sha256(content) for name, content in others.items()},
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
    assert first.trial.prediction == {"cat": 0.75, "dog": 0.25}
    assert (first.trial.layer, first.trial.methods, first.unmet) == ("fc", ("gradcam",), ())
    with pytest.raises(ToolError, match="--force"):
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
    with pytest.raises(ToolError, match=said):
        package(failing(recipe, line), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_failed_replacement_leaves_the_archive_that_was_there(recipe, tmp_path):
    there = tmp_path / "net.mar"
    there.write_bytes(b"the old one")
    with pytest.raises(ToolError):
        package(failing(recipe, "raise ValueError"), tmp_path, force=True)
    assert there.read_bytes() == b"the old one"


def test_an_import_error_of_the_handler_is_said_as_it_is(recipe, tmp_path):
    (recipe.handlers / "explain_handler.py").write_text("import no_such_thing\n")
    with pytest.raises(ToolError, match="cannot be imported: No module named 'no_such_thing'"):
        package(recipe, tmp_path / "store")


def test_weights_of_another_model_are_refused_in_one_line(recipe, tmp_path):
    torch.save(torch.nn.Linear(3, 3).state_dict(), recipe.weights)
    with pytest.raises(ToolError, match=r"does not load: .*size mismatch") as refusal:
        package(recipe, tmp_path / "store")
    assert "\n" not in str(refusal.value)


READS = """
import pathlib, torch
DATA = {data}
class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        {read}
"""


@pytest.mark.parametrize(
    ("data", "read"),
    [
        ("{folder!r}", "torch.from_numpy(__import__('numpy').fromfile(DATA + '/prior.npy'))"),
        ("{weights!r}", "torch.load(DATA)"),
        ("'~/.heatserve-prior'", "open(pathlib.Path(DATA).expanduser())"),
    ],
)
def test_the_proof_sees_the_archive_and_nothing_beside_what_it_was_made_from(recipe, tmp_path, monkeypatch, data, read):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / ".heatserve-prior").write_text("1")
    (tmp_path / "prior.npy").write_text("1")
    (tmp_path / "beside.py").write_text("")
    places = {"beside": str(tmp_path / "prior.npy"), "folder": str(tmp_path), "weights": str(recipe.weights)}
    (tmp_path / "model.py").write_text(READS.format(data=data.format(**places), read=read))
    with pytest.raises(ToolError, match=r"does not load: .*(No such file|No module named|it is not in the archive)"):
        package(recipe, tmp_path / "store")


def test_what_lies_beside_the_sources_is_absent_and_what_is_installed_is_there(tmp_path):
    sources, own = tmp_path / "sources", tmp_path / "sources" / "trial"
    own.mkdir(parents=True)
    for path in (sources / "prior.py", own / "fine.py", tmp_path / "link"):
        path.write_text("")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(sources)
    tried = {
        f"open({str(sources / 'prior.py')!r})": False,
        f"open({str(sources / 'prior.py')!r}.encode(), 'rb')": False,
        f"open({str(tmp_path / 'link' / 'prior.py')!r})": False,
        "open('../prior.py')": False,
        f"os.open({str(sources / 'prior.py')!r}, os.O_RDONLY)": False,
        f"os.listdir({str(sources)!r})": False,
        f"list(os.scandir({str(sources)!r}))": False,
        f"sys.path.append({str(sources)!r}) or __import__('prior')": False,
        "open('fine.py')": True,
        "os.listdir()": True,
        "open(__import__('PIL').__file__)": True,
        "__import__('xmlrpc.client')": True,
        "open(os.devnull)": True,
    }
    installed = Path(importlib.util.find_spec("PIL").origin).parent
    script = (
        "import importlib.util, json, os, sys\n"
        "spec = importlib.util.spec_from_file_location('trial_worker', sys.argv[1])\n"
        "worker = importlib.util.module_from_spec(spec); spec.loader.exec_module(worker)\n"
        "worker.hide(sys.argv[3:], os.getcwd())\n"
        "def works(code):\n"
        "    try:\n"
        "        eval(code)\n"
        "    except (OSError, ImportError):\n"
        "        return False\n"
        "    return True\n"
        "print(json.dumps([works(code) for code in json.loads(sys.argv[2])]))\n"
    )
    worker = ROOT / "heatserve_tools" / "packaging" / "trial_worker.py"
    arguments = [worker, json.dumps([*tried]), sources, installed]
    done = subprocess.run([sys.executable, "-I", "-c", script, *arguments], cwd=own, capture_output=True, text=True)
    assert dict(zip(tried, json.loads(done.stdout))) == tried, done.stderr


def test_a_model_may_read_what_is_installed_and_what_travels_with_it(recipe, tmp_path):
    reads = "open(torch.__file__); open(__file__); __import__('torchvision'); __import__('tempfile').mkdtemp()"
    (tmp_path / "model.py").write_text(READS.format(data="None", read=reads))
    assert package(recipe, tmp_path / "store").trial.methods == ("gradcam",)


def test_a_model_that_does_without_a_file_that_is_not_there_is_proved_without_it(recipe, tmp_path):
    (tmp_path / "prior.npy").write_text("1")
    tries = f"try:\n            open({str(tmp_path / 'prior.npy')!r})\n        except OSError:\n            pass"
    (tmp_path / "model.py").write_text(READS.format(data="None", read=tries))
    package(recipe, tmp_path / "store")


@pytest.mark.parametrize(("where", "line"), [("import", "sys.exit()"), ("call", "raise KeyboardInterrupt")])
def test_a_model_file_that_ends_the_process_is_refused_in_a_sentence(recipe, tmp_path, where, line):
    source = READS.format(data="None", read=line if where == "call" else "pass").replace("import pathlib", "import sys")
    (tmp_path / "model.py").write_text(source if where == "call" else f"{source}\n{line}\n")
    with pytest.raises(ToolError, match=r"SystemExit|KeyboardInterrupt") as refusal:
        package(recipe, tmp_path / "store")
    assert "\n" not in str(refusal.value)


def test_two_archives_that_differ_in_a_fact_of_the_manifest_alone_have_two_hashes(recipe, tmp_path):
    (tmp_path / "model.py").write_text(MODEL + "\n\nOther = Net\n")
    recipes = [
        recipe,
        replace(recipe, architecture=recipe.architecture.replace(":Net", ":Other")),
        replace(recipe, version="2.0"),
        replace(recipe, name="other"),
    ]
    blocks = [json.loads(members(one)[MANIFEST])["heatserve"] for one in recipes]
    assert len({block["contents_sha256"] for block in blocks}) == 4
    assert all(block["members"] == blocks[0]["members"] for block in blocks)


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "", "# nothing\n", "a: 2023-13-45\n", "1: 2\n", "text\n"])
def test_a_configuration_that_is_no_mapping_is_refused(recipe, text):
    recipe.config.write_text(text)
    with pytest.raises(ToolError, match=r"settings\.yaml"):
        members(recipe)


def test_two_files_of_one_name_are_refused(recipe, tmp_path):
    (recipe.handlers / "model.py").write_text("")
    with pytest.raises(ToolError, match=r"would be called model\.py"):
        members(recipe)


@pytest.mark.parametrize(
    ("explain", "extensions"),
    [
        (None, ["first", "second"]),
        ({"method": "cam"}, ["first", "second"]),
        ({"extensions": None}, ["first", "second"]),
        ({"extensions": "nets.methods"}, ["nets.methods", "first", "second"]),
        ({"extensions": ["second", "other"], "chunk": 2}, ["second", "other", "first"]),
    ],
)
def test_an_extension_lies_in_the_root_and_in_the_configuration(recipe, tmp_path, explain, extensions):
    paths = [tmp_path / "folder" / name for name in ("first.py", "second.py")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("from heatserve import register\n")
    recipe.config.write_text(yaml.safe_dump({"batchSize": 2, "explain": explain}))
    contents = members(replace(recipe, extensions=(*paths,), activation=None))
    assert [contents[path.name] for path in paths] == paths
    config = yaml.safe_load(contents["model-config.yaml"])
    assert config == {"batchSize": 2, "explain": {**(explain or {}), "extensions": extensions}}
    manifest = json.loads(contents[MANIFEST])
    assert manifest["model"]["modelFile"] == "model.py"
    assert manifest["heatserve"]["members"]["first.py"] == mar.sha256(paths[0])
    alone = members(replace(recipe, config=None, continuous=True, extensions=(paths[0],), activation=None))
    config = yaml.safe_load(alone["model-config.yaml"])
    assert config["explain"] == {"extensions": ["first"]} and config["continuousBatching"] is True


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("heatserve.py", "", "The extension heatserve.py would hide"),
        ("json.py", "", "The extension json.py would hide"),
        ("my-methods.py", "", "Python name"),
        ("methods.txt", "", "Python name"),
        ("methods.py", "class (", "The extension methods.py is not Python: line 1"),
        ("nowhere.py", None, "There is no extension"),
        ("model.py", "", r"Two files of the archive would be called model\.py"),
        ("click.py", "", r"a file click\.py beside a package"),
    ],
)
def test_an_extension_that_cannot_be_imported_by_its_name_is_refused(recipe, tmp_path, name, source, said):
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    if source is not None:
        path.write_text(source)
    with pytest.raises(ToolError, match=said):
        members(replace(recipe, extensions=(path,), include_packages=("click",)))


def test_an_extension_needs_a_block_of_settings(recipe, tmp_path):
    (tmp_path / "methods.py").write_text("")
    recipe.config.write_text("explain: [method]\n")
    with pytest.raises(ToolError, match="block explain is no mapping"):
        members(replace(recipe, extensions=(tmp_path / "methods.py",)))


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
    assert result.output.splitlines()[-1].startswith("Refused: The weights weights.pth")
    assert "Traceback" not in result.output
    assert not (tmp_path / "store").exists()


PROBABLE = """import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(self.conv(x).relu().mean((2, 3))).sigmoid()
"""


def test_a_network_that_gives_probabilities_is_refused_by_the_handler_itself_in_its_sentence(tmp_path):
    (tmp_path / "model.py").write_text(PROBABLE)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (tmp_path / "settings.yaml").write_text("batchSize: 2\npreprocess:\n  resize: 36\n  crop: 32\n")
    state = {"conv.weight": torch.rand(4, 3, 3, 3), "conv.bias": torch.rand(4)}
    state |= {"linear.weight": torch.rand(2, 4), "linear.bias": torch.rand(2)}
    torch.save(state, tmp_path / "weights.pth")
    files = [tmp_path / name for name in ("weights.pth", "labels.txt", "settings.yaml")]
    with pytest.raises(ToolError, match=r"does not load: .*scores before its softmax or sigmoid"):
        package(Recipe("net", f"{tmp_path / 'model.py'}:Net", *files, activation="softmax"), tmp_path / "store")
