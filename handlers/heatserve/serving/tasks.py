"""The tasks of the pool that no thread has taken yet, and which of them comes next."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

#: The bytes that the pictures of a lane may take together while they are decoded. One that takes more is alone there.
MOST_BYTES = 1_000_000_000


@dataclass(order=True)
class Task:
    """A piece of work. The one that is due first goes first."""

    due: float
    number: int
    work: Callable[[], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)
    large: bool = field(compare=False)
    memory: int = field(compare=False)

    def run(self) -> None:
        """Does the work, unless it was cancelled. Only what is no Exception is raised, and the future has it too."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.work()
        except BaseException as error:
            self.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self.future.set_result(result)


class Queue:
    """The tasks that no thread has taken.

    Large ones run in half of the threads at most. They and all others are two lanes, of which none holds up the other.
    A task whose memory does not fit beside that of its lane which runs waits, with those that are due later.
    """

    def __init__(self, threads: int) -> None:
        self._most_large = max(1, threads // 2)
        self._large_running = 0
        self._memory = [0, 0]  # of tasks that run and are not large, and of those that are
        self._quick: list[Task] = []
        self._large: list[Task] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, task: Task) -> None:
        with self._changed:
            for lane in (self._quick, self._large):  # a task that was cancelled would hold its picture until its turn
                if any(each.future.cancelled() for each in lane):
                    lane[:] = [each for each in lane if not each.future.cancelled()]
                    heapq.heapify(lane)
            heapq.heappush(self._large if task.large else self._quick, task)
            self._changed.notify()

    def quick(self) -> Task | None:
        """The task that is due first among those that are not large; None where there is none that may run now."""
        with self._changed:
            return self._take([self._quick])

    def next(self) -> Task | None:
        """The task that is due first among those that may run now. It waits for one. None once the queue is closed."""
        with self._changed:
            while not self._closed:
                lanes = [self._quick] if self._large_running >= self._most_large else [self._quick, self._large]
                task = self._take(lanes)
                if task is not None:
                    return task
                self._changed.wait()
            return None

    def done(self, task: Task) -> None:
        """Learns that a task that `next` or `quick` gave is done."""
        with self._changed:
            self._large_running -= task.large
            self._memory[task.large] -= task.memory
            if task.memory:
                self._changed.notify_all()

    def _take(self, lanes: Sequence[list[Task]]) -> Task | None:
        lanes = [lane for lane in lanes if lane and self._fits(lane[0])]
        if not lanes:
            return None
        task = heapq.heappop(min(lanes, key=lambda lane: lane[0]))
        self._large_running += task.large
        self._memory[task.large] += task.memory
        return task

    def _fits(self, task: Task) -> bool:
        taken = self._memory[task.large]
        return not taken or taken + task.memory <= MOST_BYTES

    def close(self) -> None:
        with self._changed:
            left, self._quick, self._large, self._closed = [*self._quick, *self._large], [], [], True
            self._changed.notify_all()
        for task in left:
            task.future.cancel()
