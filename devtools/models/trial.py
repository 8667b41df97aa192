"""The trial of one network: its layer and layout, and its maps against pytorch-grad-cam's."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from devtools.models.subjects import CLASSES, Subject, seeded
from heatserve.engine import Explainer, Query, UnsuitableModel

#: The largest distance to pytorch-grad-cam's map, in its maximum.
TOLERANCE = 1e-4
_SAMPLES = 3


@dataclass(frozen=True)
class Outcome:
    """The outcome of one trial.

    family, constructor, library: of the network.
    layer, layout: as they were found; empty where none was.
    proved: whether changed pictures have shown the layout.
    distance: of the Grad-CAM maps, in their maximum.
    seconds: of the whole trial.
    sentence: the reason where the network is not served; empty where it is.
    """

    library: str
    family: str
    constructor: str
    layer: str = ""
    layout: str = ""
    proved: bool = False
    distance: float | None = None
    seconds: float = 0.0
    sentence: str = ""

    @property
    def served(self) -> bool:
        """Whether everything that was asked for was answered as it should be."""
        return not self.sentence


class Rectified(nn.Module):
    """The rectified output of a module, as DenseNet's function gives it; no value is exactly 0."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """The module's output, rectified."""
        rectified: Tensor = self.net(images).relu() + torch.finfo(torch.float32).tiny
        return rectified


def try_subject(subject: Subject) -> Outcome:
    """The outcome for one network."""
    begun = time.monotonic()
    try:
        found = _explained(subject)
    except UnsuitableModel as error:
        found: dict[str, Any] = {"sentence": str(error)}
    except Exception as error:  # a network may fail in any way, and the others are still to be tried
        found = {"sentence": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    seconds = round(time.monotonic() - begun, 1)
    return Outcome(subject.library, subject.family, subject.constructor, seconds=seconds, **found)


def _explained(subject: Subject) -> dict[str, Any]:
    net = seeded(subject.build)
    oracle = copy.deepcopy(net)
    images = pictures(2, subject.size)
    one = Explainer(net, images)
    found: dict[str, Any] = {"layer": one.layer, "layout": str(one.layout_of(one.layer))}
    found["proved"] = one.layout_of(one.layer).proved
    expected = expected_layout(oracle, one.layer)
    told = _told_apart(oracle, one.layer, found["layout"], images)
    if told is None:
        return {**found, "sentence": "Grad-CAM is 0 for every class"}
    (first, second), theirs = told
    queries = [[Query(target=first), Query("gradient", target=first)], [Query("gradient"), Query(target=second)]]
    _, rows = one.run(images, queries)
    (smooth,) = one.explain(images[:1], Query("smoothgrad", target=first, samples=_SAMPLES))
    ours = torch.stack([rows[0][0].values, rows[1][1].values])
    distance = float((ours - theirs).abs().max() / theirs.abs().max())
    found["distance"] = distance
    gradients = [rows[0][1].values, rows[1][0].values, smooth.values]
    if expected not in ("", found["layout"]):
        found["sentence"] = f"the layout is {found['layout']}, and the network itself says {expected}"
    elif not all(bool(values.isfinite().all()) for values in gradients):
        found["sentence"] = "a gradient is not finite"
    elif not all(bool(values.any()) for values in gradients):
        found["sentence"] = "a gradient is 0 everywhere"
    elif not distance <= TOLERANCE:
        found["sentence"] = f"Grad-CAM differs from pytorch-grad-cam's by {distance:.1e}"
    return found


def _told_apart(net: nn.Module, layer: str, layout: str, images: Tensor) -> tuple[tuple[int, int], Tensor] | None:
    """A class for each of two pictures whose map of pytorch-grad-cam is not 0, and these maps; None where none is.

    The scores of random weights hardly depend on the picture: a class has a map of zeros for both, or for neither.
    """
    first: dict[int, tuple[int, Tensor]] = {}
    for targets in zip(range(CLASSES), range(CLASSES)[::-1]):
        maps = grad_cam(net, layer, layout, images, list(targets))
        for row, target in enumerate(targets):
            if bool(maps[row].any()):
                first.setdefault(row, (target, maps[row]))
        if len(first) == len(images):
            return (first[0][0], first[1][0]), torch.stack([first[0][1], first[1][1]])
    return None


def pictures(count: int, size: tuple[int, int]) -> Tensor:
    """Smooth random images, (count, 3, H, W)."""
    coarse = torch.randn((count, 3, 5, 7), generator=torch.Generator().manual_seed(0))
    return 1.5 * nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)


def expected_layout(net: nn.Module, layer: str) -> str:
    """The layout that a plain ViT of timm states itself; empty for other networks."""
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    # Class attention adds the class token behind the blocks.
    late = any(hasattr(net, name) for name in ("blocks_token_only", "cls_attn_blocks"))
    if not layer.startswith("blocks.") or not hasattr(net, "num_prefix_tokens") or grid is None or late:
        return ""
    return f"tokens:{net.num_prefix_tokens}:{grid[0]}x{grid[1]}"


def grad_cam(net: nn.Module, layer: str, layout: str, images: Tensor, targets: list[int]) -> Tensor:
    """pytorch-grad-cam's maps before it scales them, (N, h, w)."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(getattr(module, "inplace", None), bool):
            setattr(module, "inplace", False)  # noqa: B010 (not every module has it)
    name, _, point = layer.partition(":")
    target = net.get_submodule(name)
    if point:
        parent, _, child = name.rpartition(".")
        first = nn.Identity()
        whole = Rectified(target) if point == "relu" else nn.Sequential(first, target)
        setattr(net.get_submodule(parent), child, whole)
        target = whole if point == "relu" else first
    chosen = [ClassifierOutputTarget(number) for number in targets]
    with GradCAM(net, [target], reshape_transform=_reshape(layout)) as method:
        method(images.clone().requires_grad_(), chosen)
        seen = method.activations_and_grads
        raw = method.get_cam_image(images, target, chosen, seen.activations[0].numpy(), seen.gradients[0].numpy())
    return torch.as_tensor(raw).relu()


def _reshape(layout: str) -> object:
    """pytorch-grad-cam's reshape transform, as its documentation has it for ViT and Swin."""
    if layout == "nchw":
        return None
    if layout == "nhwc":
        return lambda values: values.transpose(2, 3).transpose(1, 2)
    prefix, (rows, columns) = int(layout.split(":")[1]), map(int, layout.split(":")[2].split("x"))

    def transform(values: Tensor) -> Tensor:
        places = values[:, prefix:, :].reshape(values.size(0), rows, columns, values.size(2))
        return places.transpose(2, 3).transpose(1, 2)

    return transform
