"""The device of a worker."""

from __future__ import annotations

from typing import Any

import torch


def device_of(gpu_id: Any) -> torch.device:
    """The device that TorchServe assigned to this worker, chosen as its own BaseHandler does.

    gpu_id: as in the context's `system_properties`; None for no GPU.
    """
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpu_id}")
    if gpu_id is not None and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
