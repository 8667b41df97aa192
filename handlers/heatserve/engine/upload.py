"""Upload: a small table of numbers goes to a device, and the host does not wait until it is there."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(table: Tensor, device: torch.device) -> Tensor:
    """A table on a device. From pinned memory CUDA copies it in its turn; from other memory it may wait for a copy."""
    if device.type != "cuda":
        return table.to(device)
    return table.pin_memory().to(device, non_blocking=True)
