"""The errors of the engine, and how to tell them apart."""

from __future__ import annotations

import torch

#: Texts of failed allocations on a CPU, in CUDA and in CUDA's libraries, which have no type for them. A library that
#: cannot make its handle, or finds no algorithm for a convolution, had no room for its workspace.
_NO_ROOM = (
    "can't allocate memory",
    "out of memory",
    "_alloc_failed",
    "_allocation_failed",
    "_status_not_initialized",
    "unable to find an engine",
    "unable to find a valid cudnn algorithm",
)
#: Texts of errors that belong to one call of CUDA: the next call may succeed, and a new process would change nothing.
_OF_ONE_CALL = (
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "no kernel image is available",
    "too many resources requested",
)


class UnsuitableModel(ValueError):
    """A network cannot be explained in the way that was asked for; the message names a way out."""


class OutOfMemory(RuntimeError):
    """The device has no room for even one row."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no room."""
    if isinstance(error, (OutOfMemory, MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _says(error, _NO_ROOM)


def is_device_lost(error: BaseException) -> bool:
    """Whether the device is lost: until this process ends, every further call to it fails.

    After an illegal memory access, a failed assertion in a kernel, an uncorrectable ECC error and the like, each call
    of CUDA in this process gives the same error again (CUDA Runtime API, cudaError). torch >= 2.8 has a type for them.
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error) or _says(error, _OF_ONE_CALL):
        return False
    kind = getattr(torch, "AcceleratorError", None)
    return (kind is not None and isinstance(error, kind)) or _says(error, ("cuda error", "cuda driver error"))


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(text in message for text in texts)
