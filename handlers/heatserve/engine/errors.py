"""What can go wrong in the engine, as types that a caller can tell apart."""

from __future__ import annotations

import torch


class UnsuitableModel(ValueError):
    """The network cannot be explained in the way that was asked for; the message says what can be done."""


class OutOfMemory(RuntimeError):
    """The device has no room for even one row."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no room: CUDA has a type for it, a CPU allocation is a plain RuntimeError."""
    known = (OutOfMemory, MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, known) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
