"""Control groups of Linux with a quota of processor time, as a container with a CPU limit has one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

V1, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
#: Microseconds in which the quota may be used up, the kernel's default.
PERIOD = 100_000
#: Seconds that the last processes of a group may take to leave it.
PATIENCE = 10.0


class Unavailable(RuntimeError):
    """No group can be made here. The message says why."""


class Group:
    """A control group with so many cores' worth of processor time. `quota` makes it and removes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """What this process starts within the block is in the group, and stays there. This process leaves it again."""
        before = _own(self.folder.parent)
        _move(self.folder)
        try:
            yield
        finally:
            _move(before)


@contextlib.contextmanager
def quota(cores: float, root: Path | None = None) -> Iterator[Group]:
    """A group with such a limit, which is removed at the end of the block, after its processes have ended.

    root: the folder of the hierarchy, by default this machine's. Raises Unavailable.
    """
    root = root or (V1 if (V1 / "cpu.cfs_quota_us").exists() else V2)
    folder = root / f"heatserve-bench-{os.getpid()}"
    limit = round(cores * PERIOD)
    try:
        folder.mkdir()
    except OSError as error:
        raise Unavailable(f"no control group can be made in {root}: {error}") from None
    try:
        try:
            if (folder / "cpu.cfs_quota_us").exists():
                (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
                (folder / "cpu.cfs_quota_us").write_text(str(limit))
            elif (folder / "cpu.max").exists():
                (folder / "cpu.max").write_text(f"{limit} {PERIOD}")
            else:
                raise Unavailable(f"the groups in {root} have no limit of processor time")
        except OSError as error:
            raise Unavailable(f"the limit of a control group cannot be set: {error}") from None
        yield Group(folder)
    finally:
        _remove(folder)


def _own(root: Path) -> Path:
    """The folder of the group of this process: the root where it is not found below it."""
    first = (root / "cpu.cfs_quota_us").exists()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        folder = root / path.lstrip("/")
        # Version 2 has one hierarchy, whose line names no controllers.
        if ("cpu" in controllers.split(",") if first else not controllers) and (folder / "cgroup.procs").exists():
            return folder
    return root


def _move(folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()))


def _remove(folder: Path) -> None:
    """Removes the group. A process that has been killed takes a moment to leave it."""
    deadline = time.monotonic() + PATIENCE
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
