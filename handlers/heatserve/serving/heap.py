"""The worker's memory: the objects that Python's collector visits, and the freed memory that the C library keeps.

glibc keeps freed memory for later, and adapts its thresholds for that by itself. The end of the heap is then given back
and taken again in every pass, while free memory between blocks in use stays with the process for ever. Here the
thresholds are fixed, so that a pass finds its memory again. Free memory after large work is given back at once.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress

#: Numbers of parameters from glibc's `malloc.h`, and the values set here, in bytes. glibc takes at most 32 MB.
_SETTINGS = {-3: 32 << 20, -1: 64 << 20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
#: Variables of an operator's own choice. Where one is set, nothing is fixed here.
_DECIDED = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
#: The fewest seconds between two trims. A trim takes up to some 10 ms, and makes the next pass as much longer.
EVERY = 10.0
#: Bytes by which the process must have grown since the last trim. Predictions alone stay below it.
GROWN = 64 << 20


class Heap:
    """The heap of this process, once everything is loaded.

    resident: gives this process's resident memory in bytes.
    trim: gives free memory back to the system. Without glibc there is none, and no memory is given back.
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
        """Keeps all objects that are there now for good, and gives back memory that was needed to load them alone.

        The collector does not visit those objects any more. A full collection then takes only as long as the objects
        of requests make it.
        """
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
    """Resident memory in bytes, as Linux says; 0 on other systems."""
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
