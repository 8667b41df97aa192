"""The layers of a network that maps may come from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..engine import Explainer, activations


@dataclass(frozen=True)
class Layer:
    """A layer that maps may come from.

    shape: of its activation for one picture, without the batch.
    default: whether maps come from it where no layer is named.
    """

    name: str
    shape: tuple[int, ...]
    default: bool


def layers_of(model: nn.Module, size: int | tuple[int, int] = 224, channels: int = 3) -> list[Layer]:
    """The layers of a network that maps may come from, the default first; the network is left as it was.

    size: height and width of the pictures that the network takes.

    Raises UnsuitableModel for a model that is no image classifier.
    """
    height, width = (size, size) if isinstance(size, int) else size
    explainer = Explainer(model, noise((channels, height, width), device_of(model)), chunk=1)
    try:
        names = list(dict.fromkeys([*explainer.layers, *explainer.structure.candidates]))
        example = noise((channels, height, width), explainer.device)[:1]
        found = activations(explainer.model, example, names)[1]
        return [Layer(name, tuple(found[name].shape[1:]), name in explainer.layers[:1]) for name in names]
    finally:
        explainer.close()


def noise(shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    return torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)).to(device)


def device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
