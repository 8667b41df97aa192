"""Launches: how work gets onto a device, and how its end is awaited. A CPU does at once what it is told."""

from __future__ import annotations

from typing import Any

import torch


class Eager:
    """The launches of a device that queues nothing."""

    def settle(self) -> None:
        """Waits until the device has done its queued work."""


class Cuda(Eager):
    """The launches of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        cuda: Any = torch.cuda
        self._done = cuda.Event()

    def settle(self) -> None:
        """Waits until the device has done the work that this thread has queued, and not that of other streams."""
        self._done.record(torch.cuda.current_stream(self._device))
        self._done.synchronize()


def launches_of(device: torch.device) -> Eager:
    """The launches of a device."""
    return Cuda(device) if device.type == "cuda" else Eager()
