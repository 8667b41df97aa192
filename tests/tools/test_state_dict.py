import io

import pytest
import torch
from safetensors.torch import save_file

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import state_dict
from heatserve_tools.packaging.state_dict import Weights

STATE = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}


class Code:
    """Something that only a pickle that runs code brings back."""


def test_a_state_dict_goes_into_the_archive_as_it_is(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(STATE, path)
    assert state_dict.for_archive(path) == Weights("model.pth", path)


def test_safetensors_become_a_state_dict_of_equal_bytes_each_time(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    weights = state_dict.for_archive(path)
    name, content = weights.name, weights.content
    assert name == "model.pt"
    assert content == state_dict.for_archive(path).content
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.pth", {"a": Code()}, "weights_only=True"),
        ("model.pth", torch.nn.Linear(2, 2), "weights_only=True"),
        ("model.pth", {"epoch": 3, "best": dict(STATE)}, "epoch, best"),
        ("model.pth", [torch.ones(1)], "a list"),
        ("model.pth", {}, "no tensors"),
        ("model.h5", STATE, "none of .pt"),
    ],
)
def test_a_file_that_is_more_than_weights_is_refused(tmp_path, name, content, said):
    path = tmp_path / name
    torch.save(content, path)
    with pytest.raises(ToolError, match=said):
        state_dict.for_archive(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.script(torch.nn.ReLU()).save(str(path))
    with pytest.raises(ToolError, match="TorchScript"):
        state_dict.for_archive(path)


def test_truncated_weights_are_said_to_be_truncated_and_no_pickle(tmp_path):
    for how, said in (({}, "truncated or damaged"), ({"_use_new_zipfile_serialization": False}, "are truncated")):
        path = tmp_path / "model.pth"
        torch.save(STATE, path, **how)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ToolError, match=said) as refusal:
            state_dict.for_archive(path)
        assert "pickle" not in str(refusal.value)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_weights_that_are_no_numbers_are_refused_by_the_tensors_name(tmp_path, name):
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)({**STATE, "b": STATE["b"] * torch.nan}, path)
    with pytest.raises(ToolError, match="3 of 3 values of b are NaN or infinite"):
        state_dict.for_archive(path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_damaged_weights_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"not weights")
    with pytest.raises(ToolError):
        state_dict.for_archive(path)
