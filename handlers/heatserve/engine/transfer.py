"""Transfers between the host and a device: small tables go up without a wait, and answers come down in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .query import Attribution


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the host, by one copy for each type of number. Those that are there already stay as they are."""
    found = list(tensors)
    for device, dtype in {(one.device, one.dtype) for one in tensors if one.device.type != "cpu"}:
        members = [k for k, one in enumerate(tensors) if (one.device, one.dtype) == (device, dtype)]
        for k, one in zip(members, _together([tensors[k] for k in members])):
            found[k] = one
    return found


def _together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one type and device, copied to the host as one row of numbers."""
    flat = torch.cat([one.reshape(-1) for one in tensors])
    if flat.is_cuda:
        onto = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True).copy_(flat, non_blocking=True)
        torch.cuda.current_stream(flat.device).synchronize()
        flat = onto.clone()  # pinned memory is scarce, and the next copy wants it
    else:
        flat = flat.cpu()
    parts = torch.split(flat, [one.numel() for one in tensors])
    return [part.reshape(one.shape) for part, one in zip(parts, tensors)]


def on_host(attributions: Sequence[Attribution], *beside: Tensor) -> tuple[list[Attribution], list[Tensor]]:
    """The attributions with what their answers read of them on the host, and tensors that are fetched with them.

    What draws are prepared from stays on the device. So does the standard error of each value.
    """
    wanted = [list(beside)]
    for one in attributions:
        parts = [] if one.query.prepares else [one.values, one.relative_error]
        wanted.append([part for part in parts if part is not None])
    found = iter(fetched([part for parts in wanted for part in parts]))
    tensors, *of_each = [[next(found) for _ in parts] for parts in wanted]
    moved = [
        replace(one, values=parts[0], relative_error=parts[1] if len(parts) > 1 else None) if parts else one
        for one, parts in zip(attributions, of_each)
    ]
    return moved, tensors
