"""Fusion: the maps of several layers become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from .choice import Source


def parts(source: Source) -> list[Source]:
    """The sources of the single layers; the source itself where it has none."""
    return [replace(source, layer=layer) for layer in source.layers] or [source]


def fused(maps: Sequence[Tensor]) -> Tensor:
    """The mean of the layers' maps, (N, h, w) of the largest one.

    maps: one for each layer, (N, h, w). Each keeps its positive part, is scaled to a maximum of 1, and is brought to
        the largest size bilinearly.
    """
    largest = max((found.shape[1:] for found in maps), key=torch.Size.numel)
    positive = [found.relu() for found in maps]
    scaled = [found / found.amax((1, 2), keepdim=True).clamp_min(torch.finfo(found.dtype).tiny) for found in positive]
    sized = [nn.functional.interpolate(found[:, None], largest, mode="bilinear")[:, 0] for found in scaled]
    return torch.stack(sized).mean(0)
