"""Checkpoints of training runs: which weights are taken, under which names, and which files are refused."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest
import torch

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import architecture, names, state_dict
from heatserve_tools.packaging.program import for_archive as program
from heatserve_tools.packaging.state_dict import Choice

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)


class Wrapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Net()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("network.py").write_text(NET)
    return tmp_path


@pytest.fixture
def network():
    made = {}
    exec(NET, made)
    torch.manual_seed(0)
    return made["Net"]()


def own(state):
    """Asks for the names of this state dict."""
    return lambda: [*state]


def read(weights):
    """The state dict as the archive's handler reads it."""
    import io

    content = weights.content
    return torch.load(io.BytesIO(content) if isinstance(content, bytes) else content, weights_only=True)


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "module"])
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pth.tar"])
def test_the_state_dict_of_a_training_run_is_found_and_its_member_is_said(folder, network, key, suffix):
    torch.save({key: network.state_dict(), "epoch": 3, "optimizer": {"lr": 0.1}}, f"run{suffix}")
    weights = state_dict.for_archive(Path(f"run{suffix}"))
    assert same(read(weights), network.state_dict())
    assert weights.name == ("run.pth" if suffix == ".pth" else "run.pt")
    assert weights.remarks == (f"the weights are the member {key} of run{suffix}",)


def test_one_of_several_state_dicts_is_named_by_its_key(folder, network):
    other = {name: value + 1 for name, value in network.state_dict().items()}
    torch.save({"model": network.state_dict(), "net": other, "best": {"model": other}}, "run.pth")
    with pytest.raises(ToolError, match="several state dicts, model, net: name one by --weights-key"):
        state_dict.for_archive(Path("run.pth"))
    assert same(read(state_dict.for_archive(Path("run.pth"), Choice("model"))), network.state_dict())
    assert same(read(state_dict.for_archive(Path("run.pth"), Choice("best.model"))), other)
    with pytest.raises(
        ToolError, match=r"no state dict worst \(--weights-key\); the members there are model, net, best"
    ):
        state_dict.for_archive(Path("run.pth"), Choice("worst"))


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema"])
def test_the_moving_average_is_taken_where_it_is_asked_for(folder, network, key):
    average = {name: value + 1 for name, value in network.state_dict().items()}
    torch.save({"state_dict": network.state_dict(), key: average}, "run.pth")
    plain = state_dict.for_archive(Path("run.pth"))
    assert same(read(plain), network.state_dict())
    assert plain.remarks == (
        "the weights are the member state_dict of run.pth",
        f"run.pth has a moving average of the weights too ({key}): --ema takes it",
    )
    assert same(read(state_dict.for_archive(Path("run.pth"), Choice(averaged=True))), average)
    torch.save({key: average}, "alone.pth")
    with pytest.raises(ToolError, match="moving average alone"):
        state_dict.for_archive(Path("alone.pth"))
    torch.save(network.state_dict(), "plain.pth")
    with pytest.raises(ToolError, match="leave --ema out"):
        state_dict.for_archive(Path("plain.pth"), Choice(averaged=True))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model.", "_orig_mod.module.", "net."])
def test_a_prefix_that_training_code_added_is_taken_off_and_said(folder, network, prefix):
    expected = network.state_dict()
    torch.save({f"{prefix}{name}": value for name, value in expected.items()}, "run.pth")
    weights = state_dict.for_archive(Path("run.pth"), network=own(expected))
    assert same(read(weights), expected)
    assert "was taken off" in " ".join(weights.remarks)


def test_prefixes_come_as_libraries_write_them(folder, network):
    """DataParallel, torch.compile and an averaged model, saved by PyTorch itself."""
    expected = network.state_dict()
    for wrapped in (
        torch.nn.DataParallel(network),
        torch.compile(network),
        torch.optim.swa_utils.AveragedModel(network),
        torch.optim.swa_utils.AveragedModel(torch.compile(network)),
    ):
        torch.save(wrapped.state_dict(), "run.pth")
        assert same(read(state_dict.for_archive(Path("run.pth"), network=own(expected))), expected)


def test_tensors_outside_the_network_are_left_out_of_a_lightning_checkpoint(folder, network):
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    content = {"state_dict": {**state, "criterion.weight": torch.ones(3)}, "pytorch-lightning_version": "2.4"}
    torch.save(content, "last.ckpt")
    weights = state_dict.for_archive(Path("last.ckpt"), network=own(network.state_dict()))
    assert same(read(weights), network.state_dict())
    assert "1 tensors of last.ckpt are not of the network and were left out, the first is criterion.weight" in str(
        weights.remarks
    )


def test_a_network_that_has_the_prefix_itself_keeps_it(folder):
    made = {}
    exec(NET, made)
    torch.save(made["Wrapped"]().state_dict(), "run.pth")
    model = architecture.read("network.py:Wrapped")
    weights = state_dict.for_archive(Path("run.pth"), network=lambda: names.of(model.reference, model.members))
    assert weights.content == Path("run.pth") and weights.remarks == ()
    model = architecture.read("network.py:Net")
    weights = state_dict.for_archive(Path("run.pth"), network=lambda: names.of(model.reference, model.members))
    assert [*read(weights)] == sorted(made["Net"]().state_dict())


def test_two_networks_that_fit_are_asked_about(folder, network):
    state = network.state_dict()
    both = {f"{part}.{name}": value for part in ("student", "teacher") for name, value in state.items()}
    torch.save({"state_dict": both}, "run.ckpt")
    with pytest.raises(ToolError, match="--weights-key student or teacher takes one"):
        state_dict.for_archive(Path("run.ckpt"), network=own(state))
    weights = state_dict.for_archive(Path("run.ckpt"), Choice("state_dict.teacher"), own(state))
    assert same(read(weights), state)


def test_names_that_no_prefix_makes_fit_stay_as_they_are(folder, network):
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, "run.pth")
    for other in (lambda: ["a", "b"], lambda: None):
        assert state_dict.for_archive(Path("run.pth"), network=other).content == Path("run.pth")


@pytest.mark.filterwarnings("ignore:.*source code of class:UserWarning")
@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize(
    ("content", "held"),
    [
        ("{'model': made.state_dict(), 'args': argparse.Namespace(lr=1)}", "argparse.Namespace"),
        ("{'state_dict': made.state_dict(), 'hyper_parameters': argparse.Namespace(lr=1)}", "argparse.Namespace"),
        ("made", "network.Net"),
        ("{'epoch': 1, 'model': made, 'optimizer': None}", "network.Net"),
    ],
)
def test_a_file_that_holds_code_is_refused_with_the_two_lines_that_convert_it(folder, monkeypatch, content, held, how):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "network", raising=False)
    made = importlib.import_module("network").Net()
    torch.save(eval(content), "run.pth", **how)
    with pytest.raises(ToolError, match="can run any code when it is loaded") as refusal:
        state_dict.for_archive(Path("run.pth"))
    sentence, *lines = str(refusal.value).splitlines()
    assert held in sentence and len(lines) == 2
    exec("\n".join(line.strip() for line in lines), {})
    assert same(torch.load("weights.pth", weights_only=True), made.state_dict())
    monkeypatch.delitem(sys.modules, "network")


class Runs:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_nothing_in_a_refused_file_is_run(folder):
    torch.save({"model": {"a": torch.ones(1)}, "args": Runs(), "more": argparse.Namespace()}, "run.pth")
    with pytest.raises(ToolError, match=r'weights_only=False\)\["model"\], "weights.pth"'):
        state_dict.for_archive(Path("run.pth"))
    assert not Path("ran").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_whole_network_is_told_from_a_state_dict(folder):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save("net.pt")
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), "net.pt2")
    for name, form in (("net.pt", "TorchScript"), ("net.pt2", "torch.export")):
        with pytest.raises(ToolError, match=f"{name} are a whole network of {form}, .* leave the architecture out"):
            state_dict.for_archive(Path(name))
        assert program(Path(name)).content == Path(name) and form in program(Path(name)).remarks[0]
    torch.save({"a": torch.ones(1)}, "state.pt")
    with pytest.raises(ToolError, match="the network's code is needed"):
        program(Path("state.pt"))
    torch.save(torch.nn.Linear(2, 2), "pickled.pt")
    with pytest.raises(ToolError, match=r"(?s)hold torch\.nn\.modules.*any code.*\.state_dict\(\)"):
        program(Path("pickled.pt"))
