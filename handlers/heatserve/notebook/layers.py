"""The layers of a network that maps may come from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..engine import Explainer, try_candidates


@dataclass(frozen=True)
class Layer:
    """A layer that maps may come from.

    shape: of its activation for one picture, without the batch.
    layout: the way in which the shape is read: "nchw", "nhwc" or "tokens:PREFIX:HxW".
    default: whether maps come from it where no layer is named.
    """

    name: str
    shape: tuple[int, ...]
    layout: str
    default: bool


def layers_of(model: nn.Module, size: int | tuple[int, int] = 224, channels: int = 3) -> list[Layer]:
    """The layers of a network that maps may come from, the default first; the network is left as it was.

    Layers at whose places the scores have no gradient are left out: their maps would be empty.

    size: height and width of the pictures that the network takes.

    Raises UnsuitableModel for a model that is no image classifier.
    """
    height, width = (size, size) if isinstance(size, int) else size
    example = noise((channels, height, width), device_of(model))
    explainer = Explainer(model, example, chunk=1)
    try:
        default = explainer.layers[:1]
        names = list(dict.fromkeys([*default, *explainer.structure.candidates]))
        found = []
        for one in try_candidates(explainer.model, example, names):
            if one.name in default:
                found.append(Layer(one.name, one.shape, str(explainer.layout_of(one.name)), True))
            elif one.reached and not one.refused:
                found.append(Layer(one.name, one.shape, str(one.layout), False))
        return found
    finally:
        explainer.close()


def noise(shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    return torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)).to(device)


def device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
