"""A worker whose device is lost, on a real TorchServe: it answers, ends, and another one serves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests
import torch
import yaml

from heatserve_tools.packaging.packager import Recipe, package
from heatserve_tools.torchserve.server import Server
from tests.serving.small import picture

pytestmark = pytest.mark.server

#: A network that fails as CUDA does after a fault, from when a file is there until the process ends.
MODEL = """
import os
import torch


class Net(torch.nn.Sequential):
    def __init__(self):
        layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        super().__init__(*layers, torch.nn.Linear(4, 2))
        self.lost = False

    def forward(self, x):
        broken = os.environ.get("BROKEN", "")
        if broken and os.path.exists(broken):
            os.remove(broken)
            self.lost = True
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().forward(x)
"""


@pytest.mark.parametrize("continuous", [False, True])
def test_a_worker_whose_device_is_lost_answers_and_is_replaced(tmp_path: Path, continuous: bool) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"preprocess": {"resize": 36, "crop": 32}}))
    namespace: dict[str, type[torch.nn.Module]] = {}
    exec(MODEL, namespace)
    torch.save(namespace["Net"]().state_dict(), tmp_path / "net.pth")
    recipe = Recipe(
        "net",
        f"{tmp_path / 'model.py'}:Net",
        tmp_path / "net.pth",
        config=tmp_path / "config.yaml",
        continuous=continuous,
        activation="softmax",
    )
    archive = package(recipe, tmp_path / "store").path
    broken = tmp_path / "broken"
    with Server({"net": archive}, env={"BROKEN": str(broken)}) as server:

        def predict() -> requests.Response:
            url = f"{server.inference}/predictions/net"
            return requests.post(url, data=picture(), headers={"Content-Type": "image/png"}, timeout=60)

        (worker,) = server.worker_pids("net")
        assert predict().status_code == 200
        broken.touch()
        told = predict()
        assert told.status_code == 500 and "accelerator failed" in told.json()["message"]
        deadline = time.monotonic() + 60
        while server.worker_pids("net") in ([], [worker], [-1]) and time.monotonic() < deadline:
            time.sleep(0.1)
        server.wait_ready("net", 60)
        assert server.worker_pids("net") != [worker]
        # It read the end of its connection; nobody had to end it.
        assert "Frontend disconnected." in server.log()
        assert predict().status_code == 200
        assert "this worker ends, so that TorchServe starts another" in server.log()
