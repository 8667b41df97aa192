"""An archive that is not what was packaged does not start, and one that cannot tell says so."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from heatserve.serving import integrity
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.service import Service
from heatserve.serving.settings import read_settings
from heatserve.serving.start import service
from tests.serving.small import CONFIG, Small, small_service, unpacked


def sealed(folder: Path) -> dict[str, Any]:
    """An unpacked archive with weights, whose manifest has the hashes of its members."""
    manifest = unpacked(folder)
    torch.save(Small().state_dict(), folder / "small.pt")
    (folder / "package").mkdir()
    (folder / "package" / "part.py").write_text("")
    manifest["model"]["serializedFile"] = "small.pt"
    names = ["index_to_name.json", "package/part.py", "small.pt"]
    manifest["heatserve"]["members"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names
    }
    return seal(manifest)


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The hash over all, by its definition."""
    del manifest["heatserve"]["contents_sha256"]
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    manifest["heatserve"]["contents_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return manifest


def started(folder: Path, manifest: dict[str, Any]) -> Service:
    return service(folder, manifest, read_settings(CONFIG, {}), torch.device("cpu"))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "place"), [("small.pt", -3000), ("small.pt", 700), ("index_to_name.json", 9)])
def test_one_changed_bit_of_a_member_is_refused_by_its_name(tmp_path: Path, name: str, place: int) -> None:
    manifest = sealed(tmp_path)
    flip(tmp_path / name, place)
    now = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    with pytest.raises(ArchiveError) as refused:
        started(tmp_path, manifest)
    assert str(refused.value) == (
        f"the archive's member {name} is not what was packaged (sha256 {now} instead of "
        f"{manifest['heatserve']['members'][name]}): package it again"
    )


def test_a_member_that_is_missing_is_refused_by_its_name(tmp_path: Path) -> None:
    manifest = sealed(tmp_path)
    (tmp_path / "package" / "part.py").unlink()
    with pytest.raises(ArchiveError, match=r"member package/part\.py is missing"):
        started(tmp_path, manifest)


@pytest.mark.parametrize(
    ("block", "key", "value"),
    [
        ("heatserve", "architecture", "torchvision.models:resnet18"),
        ("heatserve", "weights_sha256", "other"),
        ("model", "modelVersion", "2.0"),
        ("model", "modelName", "other"),
    ],
)
def test_the_hash_of_the_contents_covers_the_manifests_own_facts(
    tmp_path: Path, block: str, key: str, value: str
) -> None:
    manifest = sealed(tmp_path)
    changed = copy.deepcopy(manifest)
    changed[block][key] = value
    assert integrity.contents_sha256(changed) != integrity.contents_sha256(manifest)
    assert integrity.contents_sha256(changed) == seal(copy.deepcopy(changed))["heatserve"]["contents_sha256"]
    with pytest.raises(ArchiveError, match=r"member MAR-INF/MANIFEST\.json is not what was packaged"):
        started(tmp_path, changed)


@pytest.mark.parametrize("name", ["added.py", "package/added.py", "package/added.so", "new/torch.pyc"])
def test_code_that_was_added_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    manifest = sealed(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(ArchiveError, match=f"member {name} was added after it was packaged"):
        started(tmp_path, manifest)


def test_labels_that_were_added_are_refused(tmp_path: Path) -> None:
    manifest = sealed(tmp_path)
    del manifest["heatserve"]["members"]["index_to_name.json"]
    with pytest.raises(ArchiveError, match=r"index_to_name\.json was added"):
        started(tmp_path, seal(manifest))


def test_what_python_and_torchserve_leave_in_the_folder_is_no_change(tmp_path: Path) -> None:
    manifest = sealed(tmp_path)
    for name in (
        "MAR-INF/MANIFEST.json",
        "__pycache__/x.cpython-311.pyc",
        "package/__pycache__/part.cpython-311.pyc",
        "venv/pyvenv.cfg",
        "venv/bin/activate_this.py",
        "notes.txt",
        ".hidden/settings.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert started(tmp_path, manifest).integrity.verified


def test_a_verified_archive_says_both_hashes_of_its_weights(tmp_path: Path) -> None:
    manifest = sealed(tmp_path)
    running = started(tmp_path, manifest)
    assert running.responder.description["archive"] == {
        "verified": True,
        "weights": {
            "member": "small.pt",
            "member_sha256": hashlib.sha256((tmp_path / "small.pt").read_bytes()).hexdigest(),
            "source_sha256": "w",
        },
    }
    assert "verified=true" in running.summary()


def test_an_archive_without_hashes_starts_and_says_that_it_is_not_verified(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        running = small_service(tmp_path)
    assert running.responder.description["archive"]["verified"] is False
    assert "this archive is not verified" in caplog.text and "verified=false" in running.summary()


def test_an_archive_made_by_other_means_says_the_hash_of_its_weights(tmp_path: Path) -> None:
    manifest = sealed(tmp_path)
    del manifest["heatserve"]["members"]
    (tmp_path / "added.py").write_text("")
    weights = started(tmp_path, manifest).responder.description["archive"]["weights"]
    assert weights["member_sha256"] == hashlib.sha256((tmp_path / "small.pt").read_bytes()).hexdigest()
