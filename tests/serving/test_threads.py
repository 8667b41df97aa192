"""The threads that a worker takes: no more than the container's share of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from heatserve.serving import threads
from heatserve.serving.threads import quotas, settle_threads, usable_processors

V1 = Path("/sys/fs/cgroup/cpu")


def files(root: Path, **content: str) -> None:
    for name, text in content.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def system(root: Path, groups: str, *mounts: str) -> None:
    files(root, proc__self__cgroup=groups, proc__self__mountinfo="\n".join(mounts))


V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate"
V1_MOUNT = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"


def test_a_container_of_version_2_has_the_quota_of_its_own_root(tmp_path: Path) -> None:
    system(tmp_path, "0::/\n", V2_MOUNT.format(root="/"))
    files(tmp_path, sys__fs__cgroup__cpu_dot_max="150000 100000\n")
    assert quotas(tmp_path) == [1.5]


def test_the_quotas_of_the_groups_above_hold_too(tmp_path: Path) -> None:
    system(tmp_path, "0::/pods/one\n", V2_MOUNT.format(root="/"))
    files(
        tmp_path,
        sys__fs__cgroup__pods__one__cpu_dot_max="max 100000\n",
        sys__fs__cgroup__pods__cpu_dot_max="400000 100000\n",
        sys__fs__cgroup__cpu_dot_max="max 100000\n",
    )
    assert quotas(tmp_path) == [4.0]


def test_a_container_of_version_1_whose_path_is_the_machines_has_its_mounts_quota(tmp_path: Path) -> None:
    system(tmp_path, "4:cpu,cpuacct:/docker/0123\n2:memory:/docker/0123\n", V1_MOUNT.format(root="/docker/0123"))
    place = tmp_path / "sys/fs/cgroup/cpu,cpuacct"
    place.mkdir(parents=True)
    (place / "cpu.cfs_quota_us").write_text("50000\n")
    (place / "cpu.cfs_period_us").write_text("100000\n")
    assert quotas(tmp_path) == [0.5]


@pytest.mark.parametrize("text", ["max 100000", "", "-1 100000", "100000 0", "no numbers"])
def test_no_limit_and_unreadable_files_are_no_quota(tmp_path: Path, text: str) -> None:
    system(tmp_path, "0::/\n", V2_MOUNT.format(root="/"))
    files(tmp_path, sys__fs__cgroup__cpu_dot_max=text)
    assert quotas(tmp_path) == []


@pytest.mark.parametrize(
    ("group", "mount"), [("", ""), ("0:", ""), ("x", "x - "), ("", "a -"), ("", "- cgroup2"), ("", "1 2 3 4 5 6 -")]
)
def test_a_line_of_another_form_keeps_no_worker_from_starting(tmp_path: Path, group: str, mount: str) -> None:
    system(tmp_path, f"{group}\n0::/\n", mount, V2_MOUNT.format(root="/"))
    files(tmp_path, sys__fs__cgroup__cpu_dot_max="150000 100000\n")
    assert quotas(tmp_path) == [1.5]


def test_a_system_without_groups_has_no_quota(tmp_path: Path) -> None:
    assert quotas(tmp_path) == []


@pytest.mark.parametrize("quota, most", [([], 8), ([0.5], 1), ([1.0], 1), ([1.9], 1), ([2.5, 6.0], 2), ([64.0], 8)])
def test_a_part_of_a_processor_is_no_thread(monkeypatch: pytest.MonkeyPatch, quota: list[float], most: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "quotas", lambda: quota)
    assert usable_processors() == most


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_an_operators_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_processors", lambda: 1)
    assert settle_threads({"OMP_NUM_THREADS": "2"}) == 2
    assert settle_threads({"OMP_NUM_THREADS": ""}) == 1


@pytest.mark.usefixtures("two_threads")
def test_threads_are_taken_away_and_never_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_processors", lambda: 64)
    assert settle_threads({}) == 2


@pytest.mark.skipif(not os.access(V1, os.W_OK) or not (V1 / "cpu.cfs_quota_us").exists(), reason="no groups to make")
def test_a_process_with_a_real_quota_of_one_processor_has_one_thread() -> None:
    group = V1 / f"heatserve-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("100000")
        code = "import os, heatserve.serving.threads as t; print(t.quotas(), t.settle_threads({}))"
        script = f'echo $$ > {group}/cgroup.procs; exec "$0" -c "$1"'
        free = {name: value for name, value in os.environ.items() if name not in threads.CHOSEN}
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, code], capture_output=True, text=True, env=free, check=True
        )
        assert done.stdout.split("]") == ["[1.0", " 1\n"]
    finally:
        group.rmdir()
