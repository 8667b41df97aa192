"""One real TorchServe for the whole folder: our archive, one with a slow batch, and the stock handler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from heatserve_tools.demo import imagenet, lite0
from heatserve_tools.packaging.packager import Packaged
from heatserve_tools.torchserve.server import Server

#: The stock handler's preprocessing and the network as it is, and a batch that waits long enough for everybody.
SLOW_BATCH = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 8,
    "maxBatchDelay": 2000,
    "explain": {"optimize": False, "max_samples": 60, "max_batch_work": 200, "max_response_bytes": 400_000},
}


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    return lite0.build(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def server(packaged: Packaged, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = packaged.path.parent
    config = folder / "batch.yaml"
    config.write_text(yaml.safe_dump(SLOW_BATCH))
    models = {
        "lite0": packaged.path,
        "lite0_live": lite0.build(folder, "lite0_live", continuous=True).path,
        "batch": lite0.build(folder, "batch", config).path,
        "stock": stock_archive(tmp_path_factory.mktemp("stock")),
    }
    with Server(models) as running:
        yield running


def stock_archive(folder: Path) -> Path:
    """lite0's weights behind TorchServe's own image_classifier, made by torch-model-archiver."""
    import json

    labels = folder / "index_to_name.json"
    labels.write_text(json.dumps({str(index): name for index, name in enumerate(imagenet.labels())}))
    config = folder / "stock.yaml"
    config.write_text(yaml.safe_dump({"minWorkers": 1, "maxWorkers": 1, "batchSize": 1}))
    command = [
        str(Path(sys.executable).parent / "torch-model-archiver"),
        "--model-name=stock",
        "--version=1.0",
        f"--model-file={lite0.EXAMPLE / 'model.py'}",
        f"--serialized-file={lite0.weights()}",
        "--handler=image_classifier",
        f"--extra-files={labels}",
        f"--config-file={config}",
        f"--export-path={folder}",
    ]
    (folder / "tmp").mkdir()
    subprocess.run(command, check=True, env={**os.environ, "TMPDIR": str(folder / "tmp")})
    return folder / "stock.mar"
