"""A small network with a linear head, and what surrounds a handler, for tests without a server."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from heatserve.serving import settings, start
from heatserve.serving.pool import VARIABLE
from heatserve.serving.service import Service

LABELS = ["cat", "dog", "crane", "crane", "Bär", "evil\r\n[METRICS]x.Count:1|#a:b"]


class Small(nn.Module):
    """Two convolutions, global average pooling, one linear layer: 6 classes, inputs of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(True), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(12, 6)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.pool(self.trunk(x)).flatten(1))


CONFIG: dict[str, Any] = {"preprocess": {"resize": 36, "crop": 32}}


def unpacked(folder: Path) -> dict[str, Any]:
    """Puts an archive that holds `Small` into a folder, as TorchServe would unpack it; its manifest."""
    (folder / "index_to_name.json").write_text(json.dumps({str(i): name for i, name in enumerate(LABELS)}))
    return {
        "model": {"modelName": "small", "modelVersion": "1.0"},
        "heatserve": {
            "architecture": "tests.serving.small:Small",
            "weights_sha256": "w",
            "contents_sha256": "c",
        },
    }


def small_service(folder: Path, config: dict[str, Any] | None = None) -> Service:
    """The service of an archive that holds `Small`."""
    merged = {**CONFIG, **(config or {})}
    environment = {name: value for name, value in os.environ.items() if name == VARIABLE}
    return start.service(folder, unpacked(folder), settings.read_settings(merged, environment), torch.device("cpu"))


def picture(width: int = 60, height: int = 40, seed: int = 0, form: str = "PNG") -> bytes:
    """A photograph-like picture: smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()
