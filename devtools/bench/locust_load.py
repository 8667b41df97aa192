"""The process of `crowd.Locust`: `python -m devtools.bench.locust_load`.

Locust replaces the sockets and threads of the standard library by gevent's, so it gets a process of its own. An order
is a line of JSON on standard input, its result a line on standard output. Between two orders the clients keep their
connections and do nothing.
"""

from __future__ import annotations

# First: it patches the modules that the other imports would load.
import locust  # isort: skip
import json
import sys
import time
from pathlib import Path
from typing import Any

from gevent.queue import JoinableQueue
from locust.env import Environment

TIMEOUT = 600.0
HEADERS = {"Content-Type": "application/octet-stream"}


class Group:
    """So many clients of one address, which share one queue of requests."""

    def __init__(self, url: str, image: str, clients: int):
        self._waiting = waiting = JoinableQueue()
        body = Path(image).read_bytes()

        class User(locust.FastHttpUser):
            host = url
            network_timeout = connection_timeout = TIMEOUT

            @locust.task
            def ask(self) -> None:
                waiting.get()
                try:
                    self.client.post(url, data=body, headers=HEADERS)
                finally:
                    waiting.task_done()

        environment = Environment(user_classes=[User])
        environment.events.request.add_listener(self._answered)
        runner = environment.create_local_runner()
        # All of them in the first second of Locust's ramp, so at once.
        runner.start(clients, spawn_rate=clients)
        runner.spawning_greenlet.join()

    def ask(self, count: int) -> dict[str, Any]:
        """So many requests: the seconds of all, the latency of each, the bytes of the answers' bodies, the errors."""
        self._latencies: list[float] = []
        self._bytes, self._errors = 0, list[str]()
        started = time.perf_counter()
        for _ in range(count):
            self._waiting.put(None)
        self._waiting.join()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "latencies": self._latencies, "bytes": self._bytes, "errors": self._errors}

    def _answered(self, response_time: float, response_length: int, exception: object, **_: object) -> None:
        self._latencies.append(response_time / 1000)
        self._bytes += response_length
        if exception:
            self._errors.append(repr(exception)[:1000])


def main() -> None:
    """Obeys the orders until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    groups: dict[str, Group] = {}
    for line in sys.stdin:
        order = json.loads(line)
        count = order.pop("count")
        key = json.dumps(order, sort_keys=True)
        if key not in groups:
            groups[key] = Group(**order)
        print(json.dumps(groups[key].ask(count)), file=answers, flush=True)


if __name__ == "__main__":
    main()
