"""`inspect`: its findings against PyTorch, against TorchServe's own loader, and against refusals of the packager."""

import json
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner

from heatserve_tools.errors import ToolError
from heatserve_tools.inspect import main
from heatserve_tools.packaging import inspector
from heatserve_tools.packaging.packager import Recipe, package

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Conv2d(4, 5, 3)
        self.fc = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.second(self.first(x).relu()).mean((2, 3)))


class Flat(Net):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(5 * 4 * 4, 3)

    def forward(self, x):
        pooled = torch.nn.functional.adaptive_avg_pool2d(self.second(self.first(x).relu()), 4)
        return self.fc(pooled.sin().flatten(1))


class Rows(Net):
    \"\"\"Its second convolution answers along one axis.\"\"\"

    def forward(self, x):
        return self.fc(self.second(self.first(x).relu().mean(3, keepdim=True).expand(-1, -1, -1, 9)).mean((2, 3)))


class Ending(Net):
    \"\"\"Its forward ends in a sigmoid, and answers a dictionary.\"\"\"

    def forward(self, x):
        return {"features": x.mean((1, 2, 3)), "logits": super().forward(x).sigmoid()}


def transformer(size=24):
    from torchvision.models import VisionTransformer

    model = VisionTransformer(size, 8, 3, 2, 16, 32, num_classes=5)
    torch.nn.init.normal_(model.heads.head.weight)
    return model


def swin():
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 16, [2, 2], [2, 2], [3, 3], num_classes=5)


class Probable(Net):
    def forward(self, x):
        return super().forward(x).sigmoid()
"""
CONFIG = "preprocess:\n  resize: 32\n  crop: 24\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a model file and a configuration of a small view."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(NET)
    Path("config.yaml").write_text(CONFIG)
    return tmp_path


def inspect(*arguments):
    """The exit status, the findings, and the output for a terminal's error stream."""
    done = CliRunner().invoke(main, [*arguments, "--json"], prog_name="heatserve inspect")
    return done.exit_code, json.loads(done.stdout) if done.stdout else None, done.stderr


def shape(name):
    """The shape of a module's output for one picture, by PyTorch itself."""
    names = {}
    exec(NET, names)
    model, found = names["Net"](), []
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: found.append(output.shape))
    model(torch.zeros(1, 3, 24, 24))
    return [*found[0][1:]]


def test_an_architecture_shows_its_layers_and_the_price_of_its_methods(folder):
    code, found, _ = inspect("model.py:Net", "--config", "config.yaml")
    network = found["network"]
    assert code == 0 and found["refused"] is found["trouble"] is None
    assert network["classes"] == 3
    assert network["layer"] == {
        "name": "second",
        "why": "the scores are the linear layer fc of its mean over all places",
    }
    assert {layer["name"]: layer["shape"] for layer in network["layers"]} == {
        "second": shape("second"),
        "first": shape("first"),
    }
    assert all(layer["refused"] is None for layer in network["layers"])
    # A pass with a backward pass counts 3 (docs/operate.md), and each answer has its prediction's pass.
    assert {method["name"]: method["passes"] for method in network["methods"]} == {
        "input_x_gradient": 4,
        "guided_backpropagation": 4,
        "guided_gradcam": 6,  # two backward passes
        "integrated_gradients": 157,  # 50 points and both ends
        "expected_gradients": 151,
        "smoothdiff": 14,  # 10 noisy copies forwards, and one pass back
        "gradcam": 1,
        "cam": 1,
        "hirescam": 1,
        "layercam": 1,
        "gradcam_plus_plus": 1,
        "xgradcam": 1,
        "eigencam": 1,
        "gradient": 1 + 3,
        "smoothgrad": 1 + 3 * 50,
        "smoothgrad_squared": 1 + 3 * 50,
        "vargrad": 1 + 3 * 50,
        "rise": 1 + 200,
        "occlusion": 1 + 1 + 13 * 13,
        "scorecam": 1 + 200,
        "attention_rollout": None,
        "attention_relevance": None,
        "legrad": None,
    }
    assert found["description"]["preprocess"]["crop"] == 24


@pytest.mark.parametrize(
    ("architecture", "layer", "why", "layout"),
    [
        ("Flat", "second", "ends the convolutional trunk", "nchw"),
        (
            "transformer",
            "encoder.layers.encoder_layer_2.ln_1",
            "it is the first normalisation of the last residual block; changed pictures show its places",
            "tokens:1:3x3",
        ),
        ("swin", "permute", "the scores are the linear layer head of its mean over all places", "nchw"),
    ],
)
def test_the_reason_for_the_layer_is_the_true_one(folder, architecture, layer, why, layout):
    source = NET.replace(".sin()", "") if architecture == "Flat" else NET
    Path("model.py").write_text(source)
    _, found, _ = inspect(f"model.py:{architecture}", "--config", "config.yaml")
    network = found["network"]
    assert network["layer"]["name"] == layer and why in network["layer"]["why"]
    assert ("trunk" in network["layer"]["why"]) == (architecture == "Flat")
    (row,) = [row for row in network["layers"] if row["name"] == layer]
    assert (row["layout"], row["shown"], row["gradient"], row["refused"]) == (layout, "proved", True, None)


def test_a_layer_whose_places_no_gradient_reaches_says_so(folder):
    _, found, _ = inspect("model.py:transformer", "--config", "config.yaml")
    rows = {row["name"]: row for row in found["network"]["layers"]}
    assert rows["encoder"]["gradient"] is False and rows["encoder"]["layout"] == "tokens:1:3x3"
    done = CliRunner().invoke(main, ["model.py:transformer", "--config", "config.yaml"])
    assert "empty: no gradient" in done.stdout and "tokens:1:3x3" in done.stdout


def test_a_declared_layout_is_called_declared(folder):
    Path("config.yaml").write_text(CONFIG + "explain: {layout: nchw, layer: second}\n")
    code, found, _ = inspect("model.py:Net", "--config", "config.yaml")
    shown = {row["name"]: row["shown"] for row in found["network"]["layers"]}
    assert code == 0 and shown == {"second": "declared", "first": "proved"}


def test_the_place_of_the_scores_is_said(folder):
    Path("config.yaml").write_text(CONFIG + "explain: {activation: sigmoid}\n")
    code, found, _ = inspect("model.py:Ending", "--config", "config.yaml")
    scores = found["network"]["scores"]
    assert code == 0
    assert (scores["activation"], scores["part"], scores["left_out"]) == ("sigmoid", "logits", "sigmoid")
    where = "the input of the sigmoid at the end of forward, which gives part 'logits' of the model's answer"
    assert scores["found"] == where
    _, found, _ = inspect("model.py:Net", "--config", "config.yaml")
    assert found["network"]["scores"]["found"] == "the model's answer"


def test_an_architecture_may_have_weights_labels_and_a_layer(folder):
    names = {}
    exec(NET, names)
    torch.save(names["Net"]().state_dict(), "weights.pt")
    Path("labels.txt").write_text("cat\ndog\ncrane\n")
    given = ["--config", "config.yaml", "--weights", "weights.pt", "--labels", "labels.txt", "--layer", "first"]
    code, found, _ = inspect("model.py:Net", *given)
    assert code == 0 and found["description"]["labelled"]
    assert found["description"]["archive"]["weights"]["member"] == "weights.pt"
    assert found["network"]["layer"] == {"name": "first", "why": "the archive names it (explain.layer)"}
    (cam,) = [method for method in found["network"]["methods"] if method["name"] == "cam"]
    assert cam["passes"] is None and "'first' is not what the network pools (that is 'second')" in cam["refused"]


METHOD = """
from heatserve import Method, register

register(
    Method(
        name="{name}", summary="a sum", source="a test", signal="layer", display="maximum",
        attribute=lambda signal: signal.activations.sum(1), reduce=lambda attribution: attribution,
    )
)
"""


def test_an_extension_of_an_architecture_brings_its_method(folder):
    Path("channels.py").write_text(METHOD.format(name="channels"))
    code, found, _ = inspect("model.py:Net", "--config", "config.yaml", "--extension", "channels.py")
    assert code == 0 and "channels" in [method["name"] for method in found["network"]["methods"]]
    code, found, _ = inspect("model.py:Net", "--config", "config.yaml")
    assert "channels" not in [method["name"] for method in found["network"]["methods"]]


def test_an_architecture_is_laid_out_as_a_whole_archive(folder):
    _, found, _ = inspect("model.py:Net", "--config", "config.yaml")
    assert found["description"]["archive"]["verified"] is True
    assert found["manifest"]["heatserve"]["contract"] == 1
    assert set(found["manifest"]["heatserve"]["members"]) > {"explain_handler.py", "model.py", "model-config.yaml"}


def test_a_method_that_the_network_cannot_answer_is_refused_with_the_reason(folder):
    code, found, _ = inspect("model.py:Flat", "--config", "config.yaml", "--layer", "second")
    refused = {method["name"]: method["refused"] for method in found["network"]["methods"]}
    assert code == 0 and refused["gradcam"] is None
    assert "does not end in global average pooling and one linear layer" in refused["cam"]


def test_a_layer_that_is_no_map_is_refused_with_the_reason(folder):
    code, found, _ = inspect("model.py:Rows", "--config", "config.yaml", "--layer", "first")
    refused = {layer["name"]: layer["refused"] for layer in found["network"]["layers"]}
    assert code == 0 and refused["first"] is None
    assert refused["second"] is not None and "second" in refused["second"]


def test_a_network_of_probabilities_is_refused_in_the_words_of_the_packager(folder):
    code, found, _ = inspect("model.py:Probable", "--config", "config.yaml")
    assert code == 1 and "scores before its softmax or sigmoid" in found["refused"]
    assert found["network"] is None and found["description"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.py:Other"], "does not define 'Other'"),
        (["nowhere.py:Net"], "There is no model file nowhere.py."),
        (["nowhere.mar"], "There is no archive nowhere.mar; an architecture is"),
        (["model.py"], "write model.py:CALLABLE"),
        (["."], "is a folder"),
        (["ends.py:Net"], "that loaded the architecture ends.py:Net ended with status 3: --verbose shows"),
        (["noise.mar"], "noise.mar is no zip file, or not a whole one."),
        (["noise.mar", "--layer", "first"], "these options need an architecture"),
        (["model.py:Net", "--config", "model.py"], "The configuration model.py is"),
    ],
)
def test_a_target_that_is_none_is_a_sentence(folder, arguments, said):
    Path("noise.mar").write_bytes(b"not a zip")
    Path("ends.py").write_text("import os\nos._exit(3)\nclass Net: pass\n")
    code, found, error = inspect(*arguments)
    assert code == 1 and found is None
    (line,) = error.splitlines()
    assert line.startswith("Error: ") and said in line


@pytest.fixture
def archive(folder):
    """A packaged archive of the network."""
    names = {}
    exec(NET, names)
    torch.save(names["Net"]().state_dict(), "weights.pt")
    return package(
        Recipe("net", "model.py:Net", Path("weights.pt"), config=Path("config.yaml"), activation="softmax"),
        Path("store"),
    )


def test_an_extension_is_asked_for_as_any_method_in_the_trial(folder):
    names = {}
    exec(NET, names)
    torch.save(names["Net"]().state_dict(), "weights.pt")
    for name in ("channels", "others"):
        Path(f"{name}.py").write_text(METHOD.format(name=name))
    Path("config.yaml").write_text(CONFIG + "explain:\n  method: channels\n")
    recipe = Recipe("net", "model.py:Net", Path("weights.pt"), config=Path("config.yaml"), activation="softmax")
    packaged = package(replace(recipe, extensions=(Path("channels.py"), Path("others.py"))), Path("store"))
    assert {"gradcam", "channels", "others"} < set(packaged.trial.methods) and packaged.unmet == ()
    assert packaged.trial.explanation["explanations"][0]["method"] == "channels"
    Path("others.py").write_text("1 / 0")
    with pytest.raises(ToolError, match=r"does not load: .*others.*ZeroDivisionError"):
        package(replace(recipe, extensions=(Path("others.py"),)), Path("store"), force=True)


def rewritten(path, **members):
    """The archive with other contents of some members."""
    with zipfile.ZipFile(path) as read:
        contents = {name: read.read(name) for name in read.namelist()}
    with zipfile.ZipFile("net.mar", "w") as written:
        for name, content in {**contents, **members}.items():
            written.writestr(name, content)
    return "net.mar"


def test_an_archive_describes_itself_as_under_torchserve(archive):
    code, found, _ = inspect(str(archive.path))
    assert code == 0
    assert found["description"] == archive.trial.description
    assert found["description"]["archive"]["verified"] is True
    assert found["manifest"]["heatserve"]["contents_sha256"] == archive.contents_sha256
    assert found["network"]["layer"]["name"] == archive.trial.layer == "second"
    done = CliRunner().invoke(main, [str(archive.path)])
    assert done.exit_code == 0
    own = ("softmax: each picture is of one class", "nchw", "proved")
    for line in ("verified", "weights.pt sha256", "resize 32, crop 24", "second", "5 x 9 x 9", "smoothgrad", *own):
        assert line in done.stdout


def test_an_archive_with_a_changed_member_is_refused_by_its_name(archive):
    code, found, _ = inspect(rewritten(archive.path, **{"model.py": NET + "\n"}))
    assert code == 1 and "member model.py is not what was packaged" in found["refused"]


def test_an_archive_that_torchserve_cannot_start_with_is_not_run(archive):
    code, found, _ = inspect(rewritten(archive.path, **{"model-config.yaml": "", "model.py": "1 / 0"}))
    assert code == 1 and "model-config.yaml that is empty" in found["trouble"] and "network" not in found


def test_an_archive_with_another_heatserve_is_a_sentence(archive):
    path = rewritten(archive.path, **{"heatserve/serving/inspection.py": "raise ImportError('no inspection')"})
    with pytest.raises(ToolError, match="no heatserve that inspects it"):
        inspector.archive(Path(path))


def test_a_process_that_a_model_leaves_behind_ends_with_the_inspection(folder):
    left = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
    left += f"open({str(folder / 'pid')!r}, 'w').write(str(child.pid))\n"
    Path("leaves.py").write_text(left + NET)
    start = time.monotonic()
    code, _, _ = inspect("leaves.py:Net", "--config", "config.yaml")
    assert code == 0 and time.monotonic() - start < 300
    child = int(Path("pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
