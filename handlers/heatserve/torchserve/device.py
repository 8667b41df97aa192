"""The device of a worker."""

from __future__ import annotations

from typing import Any

import torch


def device_of(gpu_id: Any) -> torch.device:
    """The device that TorchServe assigned to this worker, chosen as its own BaseHandler does; CUDA's current one.

    gpu_id: as in the context's `system_properties`; None for no GPU.
    """
    if gpu_id is not None and torch.cuda.is_available():
        device = torch.device(f"cuda:{gpu_id}")
        # Libraries, streams and events that name no device would otherwise take card 0, and memory on it.
        torch.cuda.set_device(device)
        return device
    if gpu_id is not None and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
