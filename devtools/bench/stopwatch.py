"""A device with the clock and the memory count that belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from devtools.bench.memory import peak_bytes
from devtools.bench.rounds import Action, Measure, timed
from heatserve_tools.errors import ToolError


@dataclass(frozen=True)
class Stopwatch:
    """A device and the measurements on it.

    timed: makes a measure in seconds that ends when the device has finished the action's work.
    peak: gives the most bytes that an action held at one time, beyond those held before it.
    """

    device: torch.device
    timed: Callable[[Action], Measure]
    peak: Callable[[Action], int]


def host() -> Stopwatch:
    """The CPU, by its own clock and its allocator's events."""
    return Stopwatch(torch.device("cpu"), timed, peak_bytes)


def cuda() -> Stopwatch:
    """The current CUDA device, by its events. Raises ToolError where there is none."""
    if not torch.cuda.is_available():
        raise ToolError("There is no CUDA device here, so nothing is measured: scripts/bench gpu needs one.")
    return Stopwatch(torch.device("cuda", torch.cuda.current_device()), _timed_by_events, _peak_of_allocator)


def about(device: torch.device) -> dict[str, Any]:
    """The device's name and properties, for the report."""
    if device.type != "cuda":
        return {"device": device.type}
    card = torch.cuda.get_device_properties(device)
    return {
        "device": card.name,
        "memory_gb": round(card.total_memory / 1e9, 1),
        "multiprocessors": card.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _timed_by_events(action: Action) -> Measure:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def measure() -> float:
        # Earlier work must not be queued any more: the first event would wait for it, the host would not.
        torch.cuda.synchronize()
        start.record()
        action()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    return measure


def _peak_of_allocator(action: Action) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    action()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
