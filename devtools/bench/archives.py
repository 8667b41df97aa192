"""The same weights as two archives: with this handler, and with TorchServe's own `image_classifier`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from devtools import imagenet, lite0

NAME = "lite0"


def ours(folder: Path) -> Path:
    """An unpacked archive with this handler and the default preprocessing, which is the stock handler's."""
    config = folder / "ours.yaml"
    config.write_text(yaml.safe_dump({"explain": {"method": "gradcam"}}))
    archive = lite0.build(folder, NAME, config).path
    unpacked = folder / "ours"
    with zipfile.ZipFile(archive) as members:
        members.extractall(unpacked)
    return unpacked


def stock(folder: Path) -> Path:
    """An unpacked archive of torch-model-archiver with the stock handler."""
    labels = folder / "index_to_name.json"
    labels.write_text(json.dumps({str(index): label for index, label in enumerate(imagenet.labels())}))
    config = folder / "stock.yaml"
    config.write_text(yaml.safe_dump({"minWorkers": 1}))
    unpacked = folder / "stock"
    unpacked.mkdir()
    options = {
        "model-name": NAME,
        "version": "1.0",
        "model-file": lite0.EXAMPLE / "model.py",
        "serialized-file": lite0.weights(),
        "handler": "image_classifier",
        "extra-files": labels,
        "config-file": config,
        "export-path": unpacked,
        "archive-format": "no-archive",
    }
    command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--force"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return unpacked / NAME


def batching(archive: Path, batch_size: int) -> Path:
    """The unpacked archive with another batch size, in a folder beside it."""
    workers = {"minWorkers": 1, "maxWorkers": 1, "responseTimeout": 300}
    return configured(archive, str(batch_size), {**workers, "batchSize": batch_size, "maxBatchDelay": 10})


def configured(archive: Path, label: str, changes: Mapping[str, Any]) -> Path:
    """The unpacked archive with other settings, in a folder beside it."""
    copy = archive.with_name(f"{archive.name}-{label}")
    shutil.copytree(archive, copy)
    manifest = json.loads((copy / "MAR-INF" / "MANIFEST.json").read_text())
    path = copy / manifest["model"]["configFile"]
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return copy
