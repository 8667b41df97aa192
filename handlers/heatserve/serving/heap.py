"""The worker's memory: what Python's collector looks at, and what the C library keeps of what was freed.

glibc keeps freed memory for later. By itself it adapts its thresholds: the end of the heap is then given back and taken
again in every pass, while free memory between blocks in use stays with the process for ever. Here they are fixed
so that a pass finds its memory again, and free memory after large work is given back at once.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress

#: glibc's `malloc.h`: numbers of parameters, and the values set here, in bytes. 32 MB is the largest that it takes.
_SETTINGS = {-3: 32 << 20, -1: 64 << 20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
#: An operator who has set one of these has decided already.
_DECIDED = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
#: Seconds between two trims at least: one takes up to some 10 ms, and the next pass as long to find its memory again.
EVERY = 10.0
#: Bytes by which the process must have grown since the last trim. Predictions alone stay below it.
GROWN = 64 << 20


class Heap:
    """The heap of this process, once everything is loaded.

    resident: gives this process's resident memory in bytes. trim: gives free memory back to the system.
    Where the C library is not glibc, nothing of this is done.
    """

    def __init__(
        self,
        resident: Callable[[], int] | None = None,
        trim: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resident, self._trim, self._clock = resident or _resident, trim or _glibc_trim(), clock
        self._least = 0
        self._due = 0.0

    def settle(self) -> None:
        """Takes all that is there now for good: the collector looks at it no more, and what was only needed to load it
        is given back. A full collection then takes no longer than what requests leave behind."""
        gc.collect()
        gc.freeze()
        _fix_thresholds()
        self._give_back()

    def trim_when_idle(self) -> None:
        """Gives free memory back if there is much of it. To be called when no work is under way."""
        if self._trim is None or self._clock() < self._due:
            return
        self._due = self._clock() + EVERY
        if self._resident() - self._least >= GROWN:
            self._give_back()

    def _give_back(self) -> None:
        if self._trim is not None:
            self._trim()
            self._least = self._resident()
            self._due = self._clock() + EVERY


def _resident() -> int:
    """What Linux says; 0 elsewhere."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _glibc() -> ctypes.CDLL | None:
    with suppress(OSError, TypeError, AttributeError):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            return library
    return None


def _glibc_trim() -> Callable[[], object] | None:
    library = _glibc()
    if library is None or not hasattr(library, "malloc_trim"):
        return None
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return lambda: library.malloc_trim(0)


def _fix_thresholds() -> None:
    library = _glibc()
    if library is None or any(name in os.environ for name in _DECIDED):
        return
    for parameter, value in _SETTINGS.items():
        library.mallopt(parameter, value)
