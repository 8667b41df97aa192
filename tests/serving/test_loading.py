"""What is broken in an archive is said in a sentence, whatever it is that is broken."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from heatserve.serving.integrity import ArchiveError
from heatserve.serving.loading import load_labels, load_model
from heatserve.serving.settings import read_settings
from heatserve.serving.start import service
from heatserve.serving.weights import not_finite
from tests.serving.small import CONFIG, Small, unpacked

CPU = torch.device("cpu")


def saved(state: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream, **how)
    return stream.getvalue()


def load(folder: Path, weights: bytes) -> nn.Module:
    (folder / "small.pt").write_bytes(weights)
    manifest = unpacked(folder)
    manifest["model"]["serializedFile"] = "small.pt"
    return load_model(folder, manifest, CPU)


def refusal(folder: Path, weights: bytes) -> str:
    with pytest.raises(ArchiveError) as refused:
        load(folder, weights)
    assert "\n" not in str(refused.value)
    return str(refused.value)


STATE = Small().state_dict()
ZIP = saved(STATE)
LEGACY = saved(STATE, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (b"", "small.pt are empty"),
        (ZIP[: len(ZIP) // 2], "small.pt are truncated or damaged"),
        (ZIP[:-1], "small.pt are truncated or damaged"),
        (LEGACY[: len(LEGACY) // 2], "small.pt are truncated"),
        (LEGACY[:20], "small.pt are truncated"),
        (b"<html>not found</html>", "small.pt are not a file that torch.save wrote"),
    ],
)
def test_weights_that_are_not_whole_are_not_taken_for_a_pickle(tmp_path: Path, weights: bytes, said: str) -> None:
    message = refusal(tmp_path, weights)
    assert said in message and "weights_only" not in message


def test_weights_that_are_whole_and_hold_code_get_the_advice_for_pickles(tmp_path: Path) -> None:
    for content in (saved(Small()), pickle.dumps(Path("x"))):
        assert "weights_only=True: save a plain state dict" in refusal(tmp_path, content)


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    manifest = unpacked(tmp_path)
    manifest["model"]["serializedFile"] = "gone.pt"
    with pytest.raises(ArchiveError, match=r"gone\.pt are not in the archive"):
        load_model(tmp_path, manifest, CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_the_tensors_name(tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    state["trunk.2.bias"][3] = value
    assert "1 of 12 values of trunk.2.bias are NaN or infinite" in refusal(tmp_path, saved(state))
    state["trunk.0.weight"].fill_(value)
    assert "216 of 216 values of trunk.0.weight" in refusal(tmp_path, saved(state))


def test_counters_and_masks_of_attention_are_no_broken_weights() -> None:
    mask = torch.full((3, 3), -torch.inf).triu(1)
    assert not_finite({"steps": torch.tensor(3), "mask": mask, "bits": torch.ones(2, dtype=torch.bool)}) is None
    mask[0, 0] = 1.5
    assert not_finite({"mask": mask}) is not None
    low = torch.tensor([1.0, torch.nan]).to(torch.float8_e4m3fn)
    assert not_finite({"low": low}) == "1 of 2 values of low are NaN or infinite"


MODEL = """
import sys, torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        {init}
        self.linear = torch.nn.Linear(3, 4)
    def forward(self, x):
        {forward}
        return self.linear(x.mean((2, 3)))
"""


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys\nsys.exit()", "cannot be imported: SystemExit"),
        ("import sys\nsys.exit('no licence')", "cannot be imported: SystemExit: no licence"),
        ("raise KeyboardInterrupt", "cannot be imported: KeyboardInterrupt"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("class Net(", "cannot be imported: SyntaxError: "),
        ("é = '\udcff'", "cannot be imported: SyntaxError: "),
        (MODEL.format(init="sys.exit(3)", forward=""), "cannot be called without arguments: SystemExit: 3"),
        (MODEL.format(init="{}['a']", forward=""), "cannot be called without arguments: KeyError: 'a'"),
        (
            MODEL.format(init="", forward="sys.exit(3)"),
            "fails on a view of 32 x 32 pixels (preprocess.crop): SystemExit",
        ),
        (MODEL.format(init="", forward="raise KeyboardInterrupt"), "fails on a view of 32 x 32 pixels"),
    ],
)
def test_a_model_file_that_fails_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_hand: bool, source: str, said: str
) -> None:
    name = f"failing_{abs(hash((source, by_hand)))}"
    (tmp_path / f"{name}.py").write_bytes(source.encode("utf-8", "surrogateescape"))
    monkeypatch.syspath_prepend(str(tmp_path))
    manifest: dict[str, Any] = {"model": {"modelFile": f"{name}.py"}} if by_hand else {}
    manifest.setdefault("model", {})
    if not by_hand:
        manifest["heatserve"] = {"architecture": f"{name}:Net"}
    with pytest.raises(ArchiveError) as refused:
        service(tmp_path, manifest, read_settings(CONFIG, {}), CPU)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_crop_that_the_network_cannot_take_is_refused_with_its_own_words(tmp_path: Path) -> None:
    manifest = {"model": {}, "heatserve": {"architecture": "torchvision.models:alexnet"}}
    with pytest.raises(ArchiveError) as refused:
        service(tmp_path, manifest, read_settings({"preprocess": {"crop": 1}}, {}), CPU)
    assert str(refused.value).startswith(
        "the network fails on a view of 1 x 1 pixels (preprocess.crop): RuntimeError: Calculated padded input size"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON (it is empty)"),
        (b" \n", "is not JSON (it is empty)"),
        (b"{", "is not JSON (JSONDecodeError: Expecting property name"),
        (b"[" * 100_000, "is not JSON (RecursionError"),
        ('{"0": "Bär"}'.encode("latin-1"), "is not UTF-8 text (byte 8)"),
        (b'"cat"', "must map class indices to names"),
        (b'{"a": "cat"}', "must map class indices to names"),
        (b'{"0": []}', "must map class indices to names"),
        (rb'{"0": "\ud800"}', "half of a surrogate pair"),
    ],
)
def test_broken_labels_are_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "index_to_name.json").write_bytes(content)
    with pytest.raises(ArchiveError) as refused:
        load_labels(tmp_path)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_labels_in_torchserves_forms_are_read(tmp_path: Path) -> None:
    for content in ({"0": "a", "1": ["n1", "b"]}, {"object_type_names": ["a", "b"]}):
        (tmp_path / "index_to_name.json").write_text(json.dumps(content))
        assert load_labels(tmp_path) == {0: "a", 1: "b"}


@pytest.mark.parametrize(("contract", "served"), [(None, True), (1, True), (2, False), ("1", False), (0, False)])
def test_an_archive_for_another_host_is_refused_and_told_what_to_do(
    tmp_path: Path, contract: Any, served: bool
) -> None:
    manifest = unpacked(tmp_path)
    if contract is not None:
        manifest["heatserve"]["contract"] = contract
    if served:
        assert service(tmp_path, manifest, read_settings(CONFIG, {}), CPU).info.name == "small"
        return
    with pytest.raises(ArchiveError) as refused:
        service(tmp_path, manifest, read_settings(CONFIG, {}), CPU)
    assert f"version {contract} of the call" in str(refused.value) and "package it again" in str(refused.value)
