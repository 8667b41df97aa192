"""A long time under mixed load in continuous batching: memory, open files and work in progress must stay flat."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import psutil
import requests

from devtools.bench import archives
from devtools.bench.crowd import Crowd
from devtools.bench.endpoint import live_server
from devtools.bench.mixed import Judge
from devtools.bench.results import Result
from devtools.bench.rounds import Progress
from devtools.growth import settled_and_end
from devtools.server_metrics import metric
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

REQUESTS = 200_000
CLIENTS = 8
GROWTH = 1.05
#: Seconds between two readings of memory and files.
_EVERY = 5.0


def measure(minutes: float, progress: Progress) -> list[Result]:
    """The load lasts so many minutes, or `REQUESTS` requests."""
    with live_server() as server:
        (worker,) = server.worker_pids(archives.NAME)
        watched = {"worker": psutil.Process(worker), "frontend": psutil.Process(server.pid)}
        known: dict[tuple[str, str], object] = {}
        Judge(server, photographs(), known).learn()
        tally, faults = Counter[str](), list[str]()

        def client(number: int) -> Callable[[], None]:
            judge, chosen = Judge(server, photographs(), known), random.Random(number)

            def ask() -> None:
                try:
                    name, fault = judge.ask(chosen)
                except requests.RequestException as error:
                    name, fault = "no answer", f"after {time.monotonic() - started:.0f} s: {error!r}"[:1000]
                tally[name] += 1
                if fault:
                    faults.append(f"{name}: {fault}")

            return ask

        readings: list[dict[str, float]] = []
        started = time.monotonic()
        with Crowd([client(number) for number in range(CLIENTS)]) as crowd, crowd.busy():
            while (share := (time.monotonic() - started) / (60 * minutes)) < 1 and tally.total() < REQUESTS:
                readings.append(_reading(watched))
                progress(max(share, tally.total() / REQUESTS))
                time.sleep(min(_EVERY, minutes))
        took = time.monotonic() - started
        return [
            Result(
                f"{tally.total()} mixed requests in {took / 60:.0f} minutes: wrong answers",
                len(faults),
                "",
                limit=0,
                detail={"kinds": dict(tally), "first_faults": faults[:20]},
            ),
            *(_flat(name, [reading[name] for reading in readings]) for name in readings[0]),
            Result("explanations that are under way when all clients have gone", _left_over(server), "", limit=0),
            Result("deaths of the worker", float(server.worker_pids(archives.NAME) != [worker]), "", limit=0),
        ]


def _reading(watched: dict[str, psutil.Process]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, process in watched.items():
        found[f"resident memory of the {name}"] = process.memory_info().rss / 1e6
        found[f"open files of the {name}"] = process.num_fds()
        found[f"threads of the {name}"] = process.num_threads()
    return found


def _flat(name: str, readings: list[float]) -> Result:
    settled, end = settled_and_end(readings)
    step = max(1, len(readings) // 40)
    return Result(
        f"{name}: at the end against after a fifth of the time",
        end / settled,
        limit=GROWTH,
        detail={"settled": settled, "end": end, "readings": [round(reading, 1) for reading in readings[::step]]},
    )


def _left_over(server: Server) -> float:
    """The worker's own count of explanations under way, while one client asks for predictions alone."""
    deadline = time.monotonic() + 60
    while True:
        requests.post(f"{server.inference}/predictions/{archives.NAME}", data=photographs()["coffee"], timeout=60)
        left = metric(server, "heatserve_explanations_under_way")
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)
