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

import torch
import yaml

from devtools.bench.networks import NETWORKS
from heatserve.serving.integrity import MANIFEST
from heatserve_tools.demo import imagenet, lite0
from heatserve_tools.packaging.mar import sealed
from heatserve_tools.packaging.packager import Recipe, package

NAME = "lite0"
#: The stock handler wants a model as a file with one class, which is made without arguments.
_RESNET50 = """\
from torchvision.models.resnet import Bottleneck, ResNet


class ResNet50(ResNet):
    def __init__(self):
        super().__init__(Bottleneck, [3, 4, 6, 3])
"""


def ours(folder: Path, network: str = NAME) -> Path:
    """An unpacked archive with this handler and the default preprocessing, which is the stock handler's."""
    config = folder / "ours.yaml"
    config.write_text(yaml.safe_dump({"explain": {"method": "gradcam"}}))
    if network == NAME:
        archive = lite0.build(folder, NAME, config).path
    else:
        recipe = Recipe(network, f"torchvision.models:{network}", _weights(folder, network), _labels(folder), config)
        archive = package(recipe, folder, force=True).path
    unpacked = folder / "ours"
    with zipfile.ZipFile(archive) as members:
        members.extractall(unpacked)
    return unpacked


def stock(folder: Path, network: str = NAME) -> Path:
    """An unpacked archive of torch-model-archiver with the stock handler."""
    model = lite0.EXAMPLE / "model.py"
    if network != NAME:
        model = folder / f"{network}_model.py"
        model.write_text(_RESNET50)
    config = folder / "stock.yaml"
    config.write_text(yaml.safe_dump({"minWorkers": 1}))
    unpacked = folder / "stock"
    unpacked.mkdir()
    options = {
        "model-name": network,
        "version": "1.0",
        "model-file": model,
        "serialized-file": _weights(folder, network),
        "handler": "image_classifier",
        "extra-files": _labels(folder),
        "config-file": config,
        "export-path": unpacked,
        "archive-format": "no-archive",
    }
    command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--force"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return unpacked / network


def _weights(folder: Path, network: str) -> Path:
    """The weights of lite0 are real ones. Other networks have those that `NETWORKS` draws, the same at every call."""
    if network == NAME:
        return lite0.weights()
    path = folder / f"{network}.pth"
    torch.save(NETWORKS[network].build().state_dict(), path)
    return path


def _labels(folder: Path) -> Path:
    path = folder / "index_to_name.json"
    path.write_text(json.dumps({str(index): label for index, label in enumerate(imagenet.labels())}))
    return path


def batching(archive: Path, batch_size: int, delay: int = 10) -> Path:
    """The unpacked archive with another batch size, in a folder beside it. delay: milliseconds that a batch waits."""
    workers = {"minWorkers": 1, "maxWorkers": 1, "responseTimeout": 300}
    return configured(archive, str(batch_size), {**workers, "batchSize": batch_size, "maxBatchDelay": delay})


def configured(archive: Path, label: str, changes: Mapping[str, Any]) -> Path:
    """The unpacked archive with other settings, in a folder beside it."""
    copy = archive.with_name(f"{archive.name}-{label}")
    shutil.copytree(archive, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    path = copy / manifest["model"]["configFile"]
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    members = manifest.get("heatserve", {}).get("members")
    if members:  # the stock handler's archive has none
        (copy / MANIFEST).write_bytes(sealed(manifest, {name: copy / name for name in members}))
    return copy
