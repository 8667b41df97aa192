"""Each kind of model in docs/kinds.md becomes an archive by the command that the page names, and answers as it says."""

import importlib.util
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from heatserve_tools.command import heatserve
from heatserve_tools.packaging.packager import Recipe, package
from tests.tools.test_inspect import CONFIG, NET

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = torch.rand(2, 3, 24, 24)
KINDS = """
def fx():
    return torch.fx.symbolic_trace(Net())


def compiled():
    return torch.compile(Net(), backend="eager")


def in_place():
    net = Net()
    net.compile(backend="eager")
    return net
"""


def free(net):
    return torch.export.export(net, (IMAGES,), dynamic_shapes=({0: torch.export.Dim("n")},))


WHOLE = {
    "scripted.pt": lambda net: torch.jit.save(torch.jit.script(net), "scripted.pt"),
    "traced.pt": lambda net: torch.jit.save(torch.jit.trace(net, IMAGES), "traced.pt"),
    "frozen.pt": lambda net: torch.jit.save(torch.jit.freeze(torch.jit.script(net)), "frozen.pt"),
    "free.pt2": lambda net: torch.export.save(free(net), "free.pt2"),
    "one.pt2": lambda net: torch.export.save(torch.export.export(net, (IMAGES[:1],)), "one.pt2"),
}


def names_of(path):
    """The names of a file, imported as a module: TorchScript reads its source."""
    found = importlib.util.spec_from_file_location("kinds_of_models", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return vars(module)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The names of the model file; the current folder has it, a configuration and a state dict."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(NET + KINDS)
    Path("config.yaml").write_text(CONFIG)
    names = names_of(tmp_path / "model.py")
    torch.manual_seed(0)
    names["net"] = names["Net"]().eval()
    torch.save(names["net"].state_dict(), "state.pt")
    return names


def packaged(architecture, weights):
    recipe = Recipe("net", architecture, Path(weights), config=Path("config.yaml"), activation="softmax")
    return package(recipe, Path("store"), force=True).trial


def test_the_file_of_a_whole_network_is_packaged_alone(names):
    eager = packaged("model.py:Net", "state.pt")
    needs_layer = {"gradcam", "cam", "hirescam", "layercam", "eigencam"}
    assert needs_layer < set(eager.methods)
    for name, save in WHOLE.items():
        save(names["net"])
        found = packaged(None, name)
        assert found.prediction == pytest.approx(eager.prediction, abs=1e-5), name
        assert found.explanation["explanations"][0]["method"] == "gradient", name
        assert {"gradient", "smoothgrad", "vargrad"} <= set(found.methods) and not needs_layer & set(found.methods), (
            name
        )


def test_an_architecture_of_each_kind_answers_as_the_page_says(names):
    eager = packaged("model.py:Net", "state.pt")
    torch.save(names["compiled"]().state_dict(), "compiled.pt")
    assert all(name.startswith("_orig_mod.") for name in torch.load("compiled.pt"))
    for architecture, weights, layers in [
        ("fx", "state.pt", True),
        ("Net", "compiled.pt", True),
        ("compiled", "compiled.pt", False),
        ("in_place", "state.pt", False),
    ]:
        Path("config.yaml").write_text(CONFIG + ("" if layers else "explain: {method: gradient}\n"))
        found = packaged(f"model.py:{architecture}", weights)
        assert ("gradcam" in found.methods) == layers and "gradient" in found.methods
        if weights == "state.pt":
            assert found.prediction == pytest.approx(eager.prediction, abs=1e-5)


def test_the_file_of_a_whole_network_can_be_inspected(names):
    WHOLE["free.pt2"](names["net"])
    done = CliRunner().invoke(heatserve, ["inspect", "free.pt2", "--config", "config.yaml"])
    assert done.exit_code == 0
    assert "gradcam, cam, hirescam" in done.stdout and "the network comes from torch.export" in done.stdout
