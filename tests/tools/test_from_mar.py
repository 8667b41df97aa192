"""`--from-mar`: archives made by torch-model-archiver, against TorchServe's own image_classifier."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from click.testing import CliRunner

from heatserve_tools import bringing
from heatserve_tools.package import main
from heatserve_tools.packaging import trial, trial_worker
from heatserve_tools.packaging.configuration import configuration

NET = """
import scales
import torch


class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(3, 8, 7, stride=4), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3, stride=2),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 7),
        )

    def forward(self, images):
        return scales.SCALE * super().forward(images)
"""
NAMES = {str(index): ["n0", f"bird {index}"] for index in range(7)}
PLAIN = """
from ts.torch_handler.image_classifier import ImageClassifier


class Birds(ImageClassifier):
    \"\"\"Lists five.\"\"\"

    topk = 5
"""
OWN = PLAIN + "\n    def preprocess(self, data):\n        return super().preprocess(data) * 2\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with all that an old archive was made from."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    Path("scales.py").write_text("SCALE = 8.0\n")
    Path("index_to_name.json").write_text(json.dumps(NAMES))
    Path("config.yaml").write_text("minWorkers: 1\nbatchSize: 3\npt2: {compile: {enable: true, backend: inductor}}\n")
    Path("requirements.txt").write_text("# the network's\neinops==0.8\n")
    torch.manual_seed(0)
    sys.modules.pop("scales", None)
    monkeypatch.syspath_prepend(tmp_path)
    names = {}
    exec(NET, names)
    torch.save(names["Net"]().state_dict(), "net.pth")
    return tmp_path


def archived(handler="image_classifier", model="net.py", weights="net.pth", **options):
    """An archive `old.mar` of torch-model-archiver. options: further ones of it."""
    given = {"model-name": "old", "version": "2.5", "handler": handler, "serialized-file": weights, **options}
    given |= {"model-file": model} if model else {}
    command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--force"]
    command += [part for key, value in given.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    Path("tmp").mkdir(exist_ok=True)
    subprocess.run(command, check=True, capture_output=True, env={"TMPDIR": "tmp", "PATH": "/usr/bin:/bin"})
    return "old.mar"


def packaged(*arguments):
    done = CliRunner().invoke(main, ["new", "--export-path", "store", "--force", *arguments])
    return done.exit_code, " ".join(done.output.split())


def taken(**options):
    """The recipe of an archive from the old one, and further options of the command."""
    empty = dict.fromkeys(bringing.Asked.__dataclass_fields__)
    given = {"from_mar": Path("old.mar"), "packages": (), "extra_files": (), "extensions": (), **options}
    return bringing.recipe("new", bringing.Asked(**{**empty, **given}), Path("scratch"))


@pytest.fixture
def trials(monkeypatch):
    """The trials of the archives that the command made in this test."""
    seen, run = [], trial.run

    def remembered(*arguments):
        seen.append(run(*arguments))
        return seen[-1]

    monkeypatch.setattr(trial, "run", remembered)
    return seen


def stock():
    """The answer of TorchServe's image_classifier on the unpacked old archive, to the picture of a trial."""
    base = importlib.import_module("ts.torch_handler.image_classifier")
    with zipfile.ZipFile("old.mar") as members:
        members.extractall("unpacked")
    manifest = json.loads(Path("unpacked/MAR-INF/MANIFEST.json").read_text())
    handler = base.ImageClassifier()
    sys.path.insert(0, "unpacked")
    try:
        properties = {"model_dir": "unpacked", "gpu_id": None}
        handler.initialize(SimpleNamespace(system_properties=properties, manifest=manifest, model_yaml_config={}))
    finally:
        sys.path.remove("unpacked")
        sys.modules.pop("net", None)
    with torch.no_grad():
        return handler.postprocess(handler.inference(handler.preprocess([{"body": trial_worker.photograph()}])))[0]


def test_an_archive_of_image_classifier_is_taken_over_with_its_answers(folder, trials):
    archived(
        extra_files="index_to_name.json,scales.py", config_file="config.yaml", requirements_file="requirements.txt"
    )
    code, said = packaged("--from-mar", "old.mar")
    assert code == 0, said
    for remark in (
        "image_classifier: its preprocessing is the default",
        "integrated gradients of /explanations are replaced",
        "requirements.txt is left out: install on the server what the network needs of it (einops==0.8)",
        "the settings pt2 of old.mar are left out",
        "extra files are carried along: scales.py",
    ):
        assert remark in said
    expected, found = stock(), trials[-1].prediction
    assert [*found] == [*expected] and len(found) == 5 and max(found.values()) < 0.9
    assert found == pytest.approx(expected, abs=1e-5)
    with zipfile.ZipFile("store/new.mar") as members:
        manifest = json.loads(members.read("MAR-INF/MANIFEST.json"))
        config = yaml.safe_load(members.read("model-config.yaml"))
    assert manifest["model"]["modelVersion"] == "2.5" and manifest["model"]["modelFile"] == "net.py"
    assert manifest["heatserve"]["architecture"] == "net:Net"
    assert config == {"minWorkers": 1, "batchSize": 3, "explain": {"activation": "softmax"}}


def test_the_options_win_over_the_old_archives_parts(folder):
    archived(extra_files="index_to_name.json,scales.py", config_file="config.yaml")
    Path("mine.yaml").write_text("batchSize: 5\nexplain: {activation: sigmoid}\n")
    recipe = taken(labels=Path("labels.txt"), config=Path("mine.yaml"), version="3")
    assert (recipe.version, recipe.labels, recipe.activation) == ("3", Path("labels.txt"), None)
    assert yaml.safe_load(configuration(recipe)) == {
        "minWorkers": 1,
        "batchSize": 5,
        "explain": {"activation": "sigmoid"},
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_an_archive_of_torchscript_is_taken_over_with_its_answers_and_methods_of_the_input(folder, trials):
    names = {}
    exec(NET, names)
    torch.manual_seed(1)
    torch.jit.trace(names["Net"]().eval(), torch.rand(2, 3, 224, 224)).save("net.pt")
    archived(model=None, weights="net.pt", extra_files="index_to_name.json")
    code, said = packaged("--from-mar", "old.mar")
    assert code == 0, said
    assert "net.pt is a network of TorchScript: it answers the methods that need no layer" in said
    assert (
        " gradient" in said.partition("methods ")[2]
        and "gradcam" not in said.partition("methods ")[2].partition("note")[0]
    )
    expected, found = stock(), trials[-1].prediction
    assert [*found] == [*expected] and found == pytest.approx(expected, abs=1e-5)


def test_a_handler_that_only_counts_classes_is_image_classifier(folder):
    Path("birds.py").write_text(PLAIN)
    archived(handler="birds.py", extra_files="index_to_name.json,scales.py")
    recipe = taken()
    assert recipe.activation == "softmax" and [*recipe.carried] == ["scales.py"]
    assert "birds.py is left out: it is image_classifier unchanged; it listed 5 classes" in " ".join(recipe.remarks)


def test_a_handler_of_the_users_own_needs_its_preprocessing_told(folder):
    Path("birds.py").write_text(OWN)
    archived(handler="birds.py", extra_files="index_to_name.json,scales.py")
    code, said = packaged("--from-mar", "old.mar")
    assert code == 1 and "a handler of its own, birds.py, whose preprocessing cannot be read" in said
    Path("mine.yaml").write_text("preprocess: {std: [0.1, 0.1, 0.1]}\n")
    code, said = packaged("--from-mar", "old.mar", "--config", "mine.yaml")
    assert code == 1 and "add --activation softmax" in said
    recipe = taken(config=Path("mine.yaml"), activation="softmax")
    assert "birds.py is left out: its preprocessing is now that of the block preprocess" in " ".join(recipe.remarks)
    assert [*recipe.carried] == ["scales.py"]


def test_archives_that_cannot_be_taken_over_are_a_sentence(folder):
    def refused(*arguments):
        code, said = packaged(*arguments)
        assert code == 1 and "Traceback" not in said
        return said

    archived(handler="image_segmenter", extra_files="scales.py")
    assert "which is not the image classifier of TorchServe" in refused("--from-mar", "old.mar")
    Path("two.py").write_text(NET + "\n\nclass Other(Net):\n    pass\n")
    archived(model="two.py", extra_files="scales.py")
    assert "two.py with 2 classes" in refused("--from-mar", "old.mar")
    archived(model=None, extra_files="scales.py")
    assert "net.pth is no network of TorchScript or torch.export" in refused("--from-mar", "old.mar")
    archived(extra_files="scales.py")
    assert packaged("--from-mar", "old.mar")[0] == 0
    assert "was made by heatserve package" in refused("--from-mar", "store/new.mar")
    assert "leave --weights out" in refused("--from-mar", "old.mar", "--weights", "net.pth")
    assert "leave all but one out" in refused("--from-mar", "old.mar", "--architecture", "net.py:Net")
    Path("cut.mar").write_bytes(Path("old.mar").read_bytes()[:200])
    assert "is no zip file, or not a whole one" in refused("--from-mar", "cut.mar")
