"""Archives without a network's code: their file is a whole network of TorchScript or of torch.export."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from heatserve.engine import UnsuitableModel
from heatserve.serving import settings, start
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.loading import load_model
from heatserve.serving.programs import program_in
from heatserve.serving.service import Service
from tests.serving.small import CONFIG, Small, picture, unpacked
from tests.serving.test_activation import EXPLAIN, PREDICT, VIEW, ask

pytestmark = pytest.mark.filterwarnings("ignore")

IMAGES = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.script(Small().train()), path)


def traced(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Small().eval(), IMAGES), path)


def exported(path: Path) -> None:
    axes = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(Small().eval(), (IMAGES,), dynamic_shapes=axes), path)


def exported_for_one(path: Path) -> None:
    torch.export.save(torch.export.export(Small().eval(), (IMAGES[:1],)), path)


PROGRAMS = {
    "scripted.pt": scripted,
    "traced.pt": traced,
    "exported.pt2": exported,
    "one.pt2": exported_for_one,
}


def archive(folder: Path, name: str, **explain: Any) -> Service:
    """The service of an archive whose file is a whole network."""
    PROGRAMS[name](folder / name)
    manifest = unpacked(folder)
    names = {str(index): f"class {index}" for index in range(6)}
    (folder / "index_to_name.json").write_text(json.dumps(names))
    del manifest["heatserve"]["architecture"]
    manifest["model"]["serializedFile"] = name
    config = {**CONFIG, "explain": explain}
    return start.service(folder, manifest, settings.read_settings(config, {}), torch.device("cpu"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_archive_of_a_whole_network_predicts_and_explains(name: str, tmp_path: Path) -> None:
    service = archive(tmp_path, name, method="gradient")
    view = VIEW(Image.open(io.BytesIO(picture())).convert("RGB"))[None]
    expected = Small().eval()(view).softmax(1)[0]
    status, found = ask(service, {"data": picture()}, PREDICT)
    assert status == 200 and max(found.values()) == pytest.approx(float(expected.max()), abs=1e-5)
    status, found = ask(service, {"data": picture(), "method": "smoothgrad", "samples": "5"}, EXPLAIN)
    assert status == 200 and found["explanations"][0]["target"]["index"] == int(expected.argmax())
    status, found = ask(service, {"data": picture(), "method": "gradcam"}, EXPLAIN)
    assert status == 400 and "gradient" in json.dumps(found)


@pytest.mark.parametrize("name", ["scripted.pt", "exported.pt2"])
def test_a_layer_of_such_an_archive_is_refused_with_the_ways_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableModel, match="no layer inside it can be recorded; use a method that needs none"):
        archive(tmp_path, name, layer="trunk")


def test_the_kind_of_a_file_is_read_from_its_records(tmp_path: Path) -> None:
    for name, save in PROGRAMS.items():
        save(tmp_path / name)
        assert program_in(tmp_path / name) == ("exported" if name.endswith("pt2") else "scripted")
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    torch.save(Small(), tmp_path / "pickle.pt")
    (tmp_path / "text.pt").write_text("text")
    for name in ("weights.pt", "pickle.pt", "text.pt", "none.pt"):
        assert program_in(tmp_path / name) is None


def load(folder: Path, name: str) -> nn.Module:
    return load_model(folder, {"model": {"serializedFile": name}}, torch.device("cpu"))


def test_an_archive_of_neither_code_nor_a_whole_network_is_refused(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ArchiveError, match="names no architecture, and its file is no network of TorchScript"):
        load(tmp_path, "weights.pt")


@pytest.mark.parametrize("name", ["scripted.pt", "exported.pt2"])
def test_a_whole_network_with_a_weight_that_is_no_number_is_refused(name: str, tmp_path: Path, monkeypatch) -> None:
    def broken(self: Small) -> None:
        original(self)
        self.linear.bias.data[0] = torch.nan

    original = Small.__init__
    monkeypatch.setattr(Small, "__init__", broken)
    PROGRAMS[name](tmp_path / name)
    with pytest.raises(ArchiveError, match=r"not finite numbers: 1 of 6 values of linear\.bias"):
        load(tmp_path, name)


@pytest.mark.parametrize("name", ["scripted.pt", "exported.pt2"])
def test_a_damaged_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    PROGRAMS[name](tmp_path / name)
    with zipfile.ZipFile(tmp_path / name) as records:
        content = {record: records.read(record) for record in records.namelist()}
    with zipfile.ZipFile(tmp_path / name, "w") as records:
        for record, data in content.items():
            records.writestr(record, b"?" if record.endswith((".py", "model.json")) else data)
    with pytest.raises(ArchiveError, match="cannot be loaded by torch") as refused:
        load(tmp_path, name)
    assert "\n" not in str(refused.value)
