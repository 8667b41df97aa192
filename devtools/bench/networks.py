"""The networks that are measured, each with the layer whose output the peers look at."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import yaml
from torch import Tensor, nn

from heatserve.imaging import decode
from heatserve.serving.settings import read_settings
from heatserve_tools.demo import lite0
from heatserve_tools.demo.photographs import photographs

SIDE = 224


@dataclass(frozen=True)
class Network:
    """A network that is measured.

    build: makes the model in evaluation mode.
    layer: the module before the pooling. The peers hook its output.
    """

    build: Callable[[], nn.Module]
    layer: str


def images(count: int) -> Tensor:
    """Repeatable noise, (count, 3, 224, 224). The cost of a pass does not depend on the picture."""
    return torch.randn((count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))


def photograph() -> Tensor:
    """A cat as lite0 sees it, (1, 3, 224, 224). The effect of rounding on a map depends on the picture."""
    config = yaml.safe_load((lite0.EXAMPLE / "model-config.yaml").read_text(encoding="utf-8"))
    preprocess = read_settings(config, {}).preprocess
    image, _ = preprocess.tensor(decode(photographs()["chelsea"], 10**7), 10**7)
    return image[None]


def _lite0() -> nn.Module:
    spec = importlib.util.spec_from_file_location("lite0_model", lite0.EXAMPLE / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: nn.Module = module.EfficientNetLite0()
    model.load_state_dict(torch.load(lite0.weights(), map_location="cpu", weights_only=True))
    return model.eval()


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    model: nn.Module = resnet50(weights=None)
    return model.eval()


NETWORKS: Mapping[str, Network] = {
    "lite0": Network(_lite0, "_bn1"),
    "resnet50": Network(_resnet50, "layer4"),
}
