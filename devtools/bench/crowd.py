"""Many clients at once, each of which sends its next request when it has the answer to its last.

`Crowd` has its clients as threads of this process, and they ask in any way. `Locust` has them in a process of its own,
so that they hold up neither each other nor the measurement; they all send one image.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from devtools.bench.bursts import Burst
from devtools.bench.children import ChildFailed
from devtools.paths import ROOT

MODULE = "devtools.bench.locust_load"


class Crowd:
    """Clients as threads, which are there while the `with` block runs and do nothing until they are told to.

    asks: a function for each client, which sends one request and returns when that is answered.
    """

    def __init__(self, asks: Sequence[Callable[[], object]]) -> None:
        self._asks = asks
        self._pool = ThreadPoolExecutor(max(1, len(asks)))

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def burst(self, each: int = 1, clients: int | None = None) -> Burst:
        """Every client sends so many requests. clients: only the first few of them do."""

        def client(ask: Callable[[], object]) -> list[float]:
            return [_seconds(ask) for _ in range(each)]

        started = time.perf_counter()
        latencies = [*self._pool.map(client, self._asks[:clients])]
        return Burst(time.perf_counter() - started, tuple(chain(*latencies)))

    @contextmanager
    def busy(self) -> Iterator[threading.Event]:
        """The clients ask again and again while the block runs.

        The event is set when one of them has stopped. An error that stopped a client is raised at the end of the block.
        """
        over, stopped = threading.Event(), threading.Event()

        def client(ask: Callable[[], object]) -> None:
            try:
                while not over.is_set():
                    ask()
            finally:
                stopped.set()

        asking = [self._pool.submit(client, ask) for ask in self._asks]
        try:
            yield stopped
        finally:
            over.set()
            for each in asking:
                each.result()


def _seconds(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


class Locust:
    """Locust's clients, which are there while the `with` block runs and do nothing between two bursts."""

    def __init__(self, image: bytes):
        self._image = image

    def __enter__(self) -> Locust:
        self._scratch = tempfile.TemporaryDirectory(prefix="heatserve-crowd-")
        self._body = Path(self._scratch.name) / "image"
        self._body.write_bytes(self._image)
        self._errors = tempfile.TemporaryFile("w+")
        self._child = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()
        self._scratch.cleanup()

    def burst(self, url: str, clients: int, count: int) -> Burst:
        """So many requests in all, shared by so many clients. Raises ChildFailed where one was not answered well."""
        order = {"url": url, "image": str(self._body), "clients": clients}
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            print(json.dumps({**order, "count": count}), file=self._child.stdin, flush=True)
            line = self._child.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self._child.wait()
            self._errors.seek(0)
            raise ChildFailed(f"{MODULE} ended with {self._child.returncode}: {self._errors.read()[-1000:].strip()}")
        found = json.loads(line)
        answered = len(found["latencies"]) - len(found["errors"])
        if answered != count:
            reason = found["errors"][0] if found["errors"] else "no answer"
            raise ChildFailed(f"{count - answered} of {count} requests to {url} were not answered well: {reason}")
        return Burst(found["seconds"], tuple(found["latencies"]), found["bytes"])
