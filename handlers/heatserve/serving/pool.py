"""The pool: threads that decode pictures and draw answers while the thread of the network does something else.

Pillow lets other threads run while it decodes, resizes and encodes. The threads of the pool have a lower priority than
the network's: those of a pass wait for each other, so that one that is held up holds up all of them.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from typing import Any, TypeVar

import torch
from PIL import Image

from .tasks import Queue, Task
from .threads import usable_processors
from .values import SettingsError

logger = logging.getLogger(__name__)

#: The environment variable by which an operator sets the number of threads.
VARIABLE = "HEATSERVE_PICTURE_THREADS"
#: The most threads of the automatic choice: each may hold a picture at full size.
MOST = 16
#: The most threads that may be set.
ALLOWED = 256
#: Steps of Linux's priority below the network's threads. By 10 steps a thread gets a tenth of a contended core.
NICENESS = 10
#: A task goes before those that come later by at most this many times its own seconds.
AGEING = 4.0
#: Seconds that the end of the process waits for a task that runs.
_ENDING = 5.0

T = TypeVar("T")


def read_threads(explain: Mapping[str, Any], environment: Mapping[str, str]) -> int | None:
    """The number of threads that an archive or its operator sets; None for the automatic choice.

    Raises SettingsError.
    """
    name, value = "explain.picture_threads", explain.get("picture_threads")
    if VARIABLE in environment:
        name, value = VARIABLE, environment[VARIABLE]
    if value is None:
        return None
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and int(text) <= ALLOWED):
        raise SettingsError(f"{name} is {value!r}; a whole number from 0 to {ALLOWED} is allowed, 0 for no threads")
    return int(text)


def automatic() -> int:
    """The number of threads where none is set: one for each processor, and one beside that of a large picture."""
    return max(2, min(MOST, usable_processors()))


class Pool:
    """Threads that end with this object, or with the process.

    threads: their number. With none of them all work is the caller's.
    """

    def __init__(self, threads: int) -> None:
        self._queue = Queue(threads)
        self._numbers = itertools.count()
        started = _start(self._queue, threads)
        self.threads = len(started)
        weakref.finalize(self, _end, self._queue, started)

    def submit(self, work: Callable[[], T], seconds: float = 0.0, large: bool = False, memory: int = 0) -> Future[T]:
        """The future result of some work, which is done in a thread of the pool or in one that helps.

        seconds: that it takes by a guess; work that takes less goes first, but not for ever.
        large: whether it would hold up others.
        memory: bytes that it takes meanwhile.
        """
        future: Future[T] = Future()
        self._queue.put(Task(time.monotonic() + AGEING * seconds, next(self._numbers), work, future, large, memory))
        return future

    def help(self) -> bool:
        """Does one task that is not large in the calling thread. Gives whether one could be done."""
        task = self._queue.quick()
        if task is None:
            return False
        try:
            task.run()
        finally:
            self._queue.done(task)
        return True

    def finish(self, futures: Collection[Future[Any]], left: Callable[[], float | None]) -> None:
        """Helps until all of these are done, or until no time is left. left: seconds; None for any number."""
        while any(not future.done() for future in futures):
            seconds = left()
            if seconds is not None and seconds <= 0:
                return
            if not self.help():
                self.rest([future for future in futures if not future.done()], seconds)

    def rest(self, futures: Collection[Future[Any]], seconds: float | None) -> None:
        """Waits until one of these is done, for so many seconds at most; None for any number."""
        wait(futures, seconds, FIRST_COMPLETED)


def _start(queue: Queue, threads: int) -> Sequence[threading.Thread]:
    """Starts the threads, as many as the system allows."""
    started: list[threading.Thread] = []
    if not threads:
        return started
    Image.init()  # two threads that load Pillow's formats at once would see half of them
    own = torch.get_num_threads()
    for number in range(threads):
        ready = threading.Event()
        thread = threading.Thread(target=_serve, args=(queue, ready), name=f"heatserve-picture-{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            logger.warning("heatserve: the system allows %d threads for pictures, not %d", number, threads)
            break
        ready.wait()
        started.append(thread)
    torch.set_num_threads(own)  # the last one to set the number sets that of all threads which start later
    return started


def _serve(queue: Queue, ready: threading.Event) -> None:
    """The life of one thread."""
    try:
        _take_little()
    finally:
        ready.set()
    while True:
        task = queue.next()
        if task is None:
            return
        with suppress(BaseException):  # its future has it
            task.run()
        queue.done(task)
        del task  # or it would hold its picture until the next one


def _take_little() -> None:
    """Gives the calling thread a lower priority, and operations of PyTorch in it no threads of their own."""
    if sys.platform == "linux":
        own = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + NICENESS))
    torch.get_num_threads()  # the first use in a thread sets the number
    torch.set_num_threads(1)


def _end(queue: Queue, threads: Sequence[threading.Thread]) -> None:
    """Ends the threads. A thread that an interpreter ends in the middle of a call may take the process down with it."""
    queue.close()
    until = time.monotonic() + _ENDING
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
