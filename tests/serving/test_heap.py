"""What the worker keeps of its memory."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys

import pytest

from heatserve.serving import heap
from heatserve.serving.heap import EVERY, GROWN, Heap


class Process:
    """A process whose memory and clock are set by hand."""

    def __init__(self) -> None:
        self.resident, self.now, self.trims = 500 << 20, 0.0, 0
        self.free = 0
        self.heap = Heap(lambda: self.resident, self._trim, lambda: self.now)

    def _trim(self) -> None:
        self.trims += 1
        self.resident -= self.free
        self.free = 0

    def work(self, kept: int) -> None:
        """Work after which so many bytes are free, but still the process's."""
        self.resident += kept
        self.free += kept


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    monkeypatch.setattr(heap, "_fix_thresholds", lambda: None)
    made = Process()
    made.heap.settle()
    gc.unfreeze()
    assert made.trims == 1
    return made


def test_large_work_is_given_back_once_nothing_is_under_way(process: Process) -> None:
    process.work(300 << 20)
    process.now = EVERY
    process.heap.trim_when_idle()
    assert (process.trims, process.resident) == (2, 500 << 20)


def test_a_trim_is_not_worth_a_prediction(process: Process) -> None:
    for _ in range(100):
        process.now += EVERY
        process.resident = (500 << 20) + GROWN - 1
        process.heap.trim_when_idle()
    assert process.trims == 1


def test_two_trims_are_some_seconds_apart(process: Process) -> None:
    for _ in range(1000):
        process.now += EVERY / 100
        process.work(GROWN)
        process.heap.trim_when_idle()
    assert 10 <= process.trims <= 11


def test_memory_that_is_in_use_for_good_is_not_tried_again(process: Process) -> None:
    process.resident += 2 * GROWN
    for _ in range(10):
        process.now += EVERY
        process.heap.trim_when_idle()
    assert process.trims == 2


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        """A library without any of glibc's names."""

    for library in (lambda _: Musl(), lambda _: (_ for _ in ()).throw(TypeError("no such library"))):
        monkeypatch.setattr(ctypes, "CDLL", library)
        other = Heap()
        other.settle()
        other.trim_when_idle()
    gc.unfreeze()


@pytest.mark.parametrize("decided", [False, True])
def test_thresholds_are_set_unless_the_operator_has_decided(monkeypatch: pytest.MonkeyPatch, decided: bool) -> None:
    given: dict[int, int] = {}

    class Glibc:
        def gnu_get_libc_version(self) -> str:
            return "2.36"

        def mallopt(self, parameter: int, value: int) -> int:
            given[parameter] = value
            return 1

    monkeypatch.setattr(heap, "_glibc", Glibc)
    for name in ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    if decided:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    heap._fix_thresholds()
    # malloc.h: M_TRIM_THRESHOLD is -1, M_MMAP_THRESHOLD is -3.
    assert given == ({} if decided else {-3: 33554432, -1: 67108864})


GIVES_BACK = """
from heatserve.serving import heap
own = heap.Heap()
own.settle()
before = heap._resident()
blocks = [bytearray(20_000) for _ in range(10_000)]
pins = blocks[::100]
del blocks
full = heap._resident()
own._due = 0
own.trim_when_idle()
after = heap._resident()
assert full - before > 150e6, (before, full)
assert after - before < 60e6, (before, full, after)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or heap._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_between_blocks_in_use_goes_back_to_the_system() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", GIVES_BACK], check=True, env=environment)


def test_what_is_there_at_the_start_is_not_collected_again() -> None:
    class Here:
        pass

    here = Here()
    Heap(lambda: 0, lambda: None).settle()
    try:
        assert not any(each is here for each in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(each is here for each in gc.get_objects())
