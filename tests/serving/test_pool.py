"""The pool alone: order, lanes, helpers, faults, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from devtools.paths import HANDLERS
from heatserve.serving.pool import NICENESS, VARIABLE, Pool, automatic, read_threads
from heatserve.serving.tasks import MOST_BYTES
from heatserve.serving.values import SettingsError

pytestmark = pytest.mark.fast_path


class Gate:
    """Work that waits until it is told to go on."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(20)
        return threading.current_thread().name


@pytest.fixture
def gates() -> Iterator[list[Gate]]:
    made = [Gate() for _ in range(4)]
    yield made
    for gate in made:
        gate.open.set()


def forever() -> float | None:
    return None


def test_a_result_is_that_of_its_own_work() -> None:
    pool = Pool(4)
    futures = [pool.submit(lambda number=number: number**2) for number in range(200)]
    assert [future.result(20) for future in futures] == [number**2 for number in range(200)]


def test_large_work_leaves_half_of_the_threads_to_other_work(gates: list[Gate]) -> None:
    pool = Pool(2)
    large = [pool.submit(gate, 0.5, True) for gate in gates]
    assert gates[0].begun.wait(20)
    assert pool.submit(lambda: "quick", 10.0).result(20) == "quick"
    assert [gate.begun.is_set() for gate in gates] == [True, False, False, False]
    for gate in gates:
        gate.open.set()
    assert all(future.result(20) for future in large)


def test_one_thread_does_large_work_too() -> None:
    pool = Pool(1)
    assert pool.submit(lambda: 1, 0.5, True).result(20) == 1 and pool.submit(lambda: 2).result(20) == 2


def test_work_that_takes_less_goes_first_but_not_for_ever(gates: list[Gate]) -> None:
    pool = Pool(1)
    pool.submit(gates[0])
    assert gates[0].begun.wait(20)
    order: list[str] = []
    futures = [pool.submit(lambda: order.append("long"), 0.05)]
    futures.append(pool.submit(lambda: order.append("short"), 0.001))
    time.sleep(0.25)  # longer than four times the seconds of the long one
    futures.append(pool.submit(lambda: order.append("late"), 0.001))
    gates[0].open.set()
    for future in futures:
        future.result(20)
    assert order == ["short", "long", "late"]


def test_the_calling_thread_helps_with_quick_work_alone(gates: list[Gate]) -> None:
    pool = Pool(1)
    pool.submit(gates[0])
    assert gates[0].begun.wait(20)
    large = pool.submit(lambda: threading.current_thread(), 1.0, True)
    quick = [pool.submit(lambda: threading.current_thread()) for _ in range(3)]
    pool.finish(quick, forever)
    assert {future.result(0) for future in quick} == {threading.current_thread()}
    assert not large.done() and not pool.help()
    gates[0].open.set()
    assert large.result(20) is not threading.current_thread()


def test_nobody_waits_for_longer_than_there_is_time(gates: list[Gate]) -> None:
    pool = Pool(1)
    future = pool.submit(gates[0])
    assert gates[0].begun.wait(20)
    until = time.monotonic() + 0.1
    pool.finish([future], lambda: until - time.monotonic())
    assert until <= time.monotonic() < until + 5 and not future.done()
    started = time.monotonic()
    pool.rest([future], 0.05)
    assert 0.04 <= time.monotonic() - started < 5


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), SystemExit(3), KeyboardInterrupt()])
def test_whatever_work_raises_its_thread_lives(error: BaseException) -> None:
    def fails() -> None:
        raise error

    pool = Pool(1)
    assert pool.submit(fails).exception(20) is error
    assert pool.submit(lambda: "alive", 1.0, True).result(20) == "alive"


def test_work_that_was_cancelled_is_not_done(gates: list[Gate]) -> None:
    pool = Pool(1)
    pool.submit(gates[0])
    assert gates[0].begun.wait(20)
    done: list[int] = []
    gone = pool.submit(lambda: done.append(1))
    assert gone.cancel()
    gates[0].open.set()
    pool.submit(lambda: done.append(2), 1.0).result(20)
    assert done == [2]


@pytest.mark.parametrize("large", [False, True])
def test_pictures_whose_memory_does_not_fit_wait_for_each_other(gates: list[Gate], large: bool) -> None:
    pool = Pool(8)
    first, second, third, small = gates
    futures = [pool.submit(first, 0.001, large, MOST_BYTES * 2)]
    assert first.begun.wait(20)
    futures += [pool.submit(gate, 0.002, large, MOST_BYTES // 2) for gate in (second, third)]
    futures.append(pool.submit(small, 0.5, large, MOST_BYTES // 10))
    time.sleep(0.1)
    assert not any(gate.begun.is_set() for gate in gates[1:]) and not pool.help()
    first.open.set()
    assert second.begun.wait(20) and third.begun.wait(20)
    time.sleep(0.1)
    assert not small.begun.is_set() and not pool.help()
    second.open.set()
    assert small.begun.wait(20)
    for gate in gates:
        gate.open.set()
    assert all(future.result(20) for future in futures)


@pytest.mark.parametrize("large", [False, True])
def test_large_pictures_and_others_do_not_wait_for_each_others_memory(gates: list[Gate], large: bool) -> None:
    pool = Pool(4)
    pool.submit(gates[0], 0.001, large, MOST_BYTES)
    assert gates[0].begun.wait(20)
    waits = pool.submit(gates[1], 0.001, large, MOST_BYTES)
    assert pool.submit(lambda: 1, 0.5, not large, MOST_BYTES).result(20) == 1
    assert not gates[1].begun.is_set() and not waits.done()


def test_memory_of_work_that_the_calling_thread_does_counts_until_it_ends(gates: list[Gate]) -> None:
    pool = Pool(2)
    for gate in gates[:2]:
        pool.submit(gate)
        assert gate.begun.wait(20)

    def fails() -> None:
        raise ValueError

    pool.submit(fails, 0.0, False, MOST_BYTES)
    assert pool.help()
    done = pool.submit(lambda: 1, 0.0, False, MOST_BYTES)
    assert pool.help() and done.result(0) == 1


def test_work_that_was_cancelled_is_kept_no_longer_than_until_the_next_comes(gates: list[Gate]) -> None:
    class Picture:
        def __call__(self) -> None:
            """Is never done."""

    pool = Pool(1)
    pool.submit(gates[0])
    assert gates[0].begun.wait(20)
    for large in (False, True):
        picture = Picture()
        kept = weakref.ref(picture)
        assert pool.submit(picture, 0.1, large).cancel()
        del picture
        last = pool.submit(lambda: 3)
        assert kept() is None
    gates[0].open.set()
    assert last.result(20) == 3


def test_threads_of_the_pool_are_below_the_networks_and_make_none_of_their_own() -> None:
    before, own = torch.get_num_threads(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    torch.set_num_threads(2)
    try:
        pool = Pool(2)
        assert torch.get_num_threads() == 2 and pool.submit(torch.get_num_threads).result(20) == 1
        found: list[int] = []
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert found == [2]
    finally:
        torch.set_num_threads(before)
    if sys.platform == "linux":
        there = pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result(20)
        assert there == min(19, own + NICENESS)
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("heatserve-picture")}


def test_threads_end_with_the_pool(gates: list[Gate]) -> None:
    before = _threads()
    pool = Pool(3)
    assert len(_threads() - before) == 3
    del pool
    assert _threads() <= before


def test_a_result_is_kept_by_its_future_alone() -> None:
    class Large:
        pass

    pool = Pool(1)
    future: Future[Any] = pool.submit(Large)
    kept = weakref.ref(future.result(20))
    del future
    until = time.monotonic() + 10
    while kept() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert kept() is None


def test_with_no_threads_none_is_started() -> None:
    before = _threads()
    assert Pool(0).threads == 0 and _threads() == before


def test_fewer_threads_are_used_where_the_system_allows_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(self: threading.Thread) -> None:
        if len(started) == 1:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    pool = Pool(4)
    assert pool.threads == 1 and pool.submit(lambda: 7, 1.0, True).result(20) == 7


ENDS = """
import sys, time
from heatserve.serving.pool import Pool
pool = Pool(2)
for _ in range(20):
    pool.submit(lambda: time.sleep(0.3))
pool.submit(lambda: time.sleep(0.3), 1.0, True)
time.sleep(0.05)
print("ending", flush=True)
sys.exit(7)
"""


def test_a_process_ends_at_once_while_work_waits() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, timeout=60, cwd=HANDLERS, check=False)
    assert done.returncode == 7 and done.stdout == b"ending\n" and not done.stderr


def test_the_number_is_the_operators_then_the_archives_then_automatic() -> None:
    assert read_threads({}, {}) is None and automatic() >= 2
    assert read_threads({"picture_threads": 3}, {}) == 3
    assert read_threads({"picture_threads": 3}, {VARIABLE: "0"}) == 0


@pytest.mark.parametrize("value", [-1, 1.5, True, "many", "", 257, [], "٣"])
def test_any_other_number_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"explain\.picture_threads is .*; a whole number from 0 to 256 is allowed"):
        read_threads({"picture_threads": value}, {})
    with pytest.raises(SettingsError, match=VARIABLE):
        read_threads({}, {VARIABLE: str(value)})
