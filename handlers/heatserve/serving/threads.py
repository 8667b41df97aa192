"""Threads: as many as the process may keep busy at one time."""

from __future__ import annotations

import os


def usable_processors() -> int:
    """The whole processors that this process may keep busy at one time, at least 1."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
