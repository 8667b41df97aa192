"""Threads: as many as the process may keep busy at one time. A container's limit counts, not the machine's processors.

PyTorch starts a thread for each processor of the machine. Where a container has a quota of fewer, the quota is used up
in a part of each period and all threads stand still for the rest of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import torch

#: An operator who sets one of these has decided.
CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def settle_threads(environ: Mapping[str, str]) -> int:
    """Gives PyTorch no more threads than this process may keep busy, unless `environ` says how many. Gives the number.

    A part of a processor is no thread: with a quota of 1.5 a second thread would stand still for half of the time, and
    the first would wait for it. What is left is the server's frontend's.
    """
    if not any(environ.get(name) for name in CHOSEN):
        most = usable_processors()
        if most < torch.get_num_threads():
            torch.set_num_threads(most)
    return torch.get_num_threads()


def usable_processors() -> int:
    """The whole processors that this process may keep busy at one time, at least 1.

    The least of the machine's, those that its affinity allows, and the quotas of its control groups.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in quotas())]))


def quotas(root: Path = Path("/")) -> list[float]:
    """The processors that each limit of this process's control groups allows; empty where there is none.

    Linux alone has such groups, in two versions; both may be there. A group's limit holds for all groups below it.

    root: of the file system, which tests replace.
    """
    found = []
    for group in _groups(root):
        quota = _quota_of_version_2(group) or _quota_of_version_1(group)
        if quota:
            found.append(quota)
    return found


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that this process is in, each with the groups above it.

    In a container a group's path may be that of the machine, which is not there: the mount is the container's own.
    """
    proc = root / "proc" / "self"
    # A line of another form is passed over: some sandboxes write these files themselves.
    mounts = [words for words in map(str.split, _lines(proc / "mountinfo")) if "-" in words[5:-1]]
    for _, controllers, path in (line.split(":", 2) for line in _lines(proc / "cgroup") if line.count(":") > 1):
        for mount in mounts:
            kind = mount[mount.index("-", 5) + 1]
            of_version_1 = kind == "cgroup" and "cpu" in mount[-1].split(",") and "cpu" in controllers.split(",")
            if not of_version_1 and not (kind == "cgroup2" and not controllers):
                continue
            folder = root / mount[4].lstrip("/")
            inner = PurePosixPath("/", path)
            if inner.is_relative_to(mount[3]):
                inner = PurePosixPath("/", inner.relative_to(mount[3]))
            for part in (inner, *inner.parents):
                yield folder / str(part).lstrip("/")


def _quota_of_version_2(group: Path) -> float | None:
    words = " ".join(_lines(group / "cpu.max")).split()
    return _share(*words) if len(words) == 2 else None


def _quota_of_version_1(group: Path) -> float | None:
    words = [" ".join(_lines(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period")]
    return _share(*words)


def _share(quota: str, period: str) -> float | None:
    """The quota of processor time in each period; None for none."""
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max" is no limit
        return None
    return share if share > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
