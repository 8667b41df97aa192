"""The engine needs torch alone."""

from __future__ import annotations

import subprocess
import sys

from devtools.paths import HANDLERS

ALONE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torchvision", "numpy", "PIL", "ts", "captum"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import torch
from heatserve import Explainer, Query

torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)
)
explainer = Explainer(network, example=torch.rand(1, 3, 16, 16))
for query in (Query("gradcam"), Query("cam"), Query("smoothgrad", samples=4)):
    (answer,) = explainer.explain(torch.rand(1, 3, 16, 16), query)
    assert answer.map.isfinite().all() and answer.map.dim() >= 2
print("explained")
"""


def test_networks_are_explained_where_torch_is_the_only_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, env={"PYTHONPATH": str(HANDLERS)}
    )
    assert done.stdout.strip() == "explained", done.stderr
