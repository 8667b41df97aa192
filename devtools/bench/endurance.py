"""A long time under mixed load in continuous batching: whether memory, files and work in progress stay flat."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from devtools.bench import archives
from devtools.bench.load import Client
from devtools.bench.results import Result
from devtools.bench.rounds import Seen
from devtools.growth import settled_and_end
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.packaging.packager import CONTINUOUS
from heatserve_tools.torchserve.server import Server

REQUESTS = 200_000
CLIENTS = 8
GROWTH = 1.05
_EVERY = 5.0


@contextmanager
def live_server() -> Iterator[Server]:
    """lite0 in continuous batching."""
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        archive = archives.configured(archives.ours(Path(scratch)), "live", {**CONTINUOUS, "responseTimeout": 120})
        with Server({archives.NAME: archive}) as server:
            yield server


def measure(minutes: float, seen: Seen) -> list[Result]:
    """So many minutes, or `REQUESTS` requests, of everything that clients do."""
    with live_server() as server:
        (worker,) = server.worker_pids(archives.NAME)
        watched = {"worker": psutil.Process(worker), "frontend": psutil.Process(server.pid)}
        known: dict[tuple[str, str], object] = {}
        Client(server, photographs(), known).learn()
        tally, faults = Counter[str](), list[str]()
        over = threading.Event()

        def client(number: int) -> None:
            own, chosen = Client(server, photographs(), known), random.Random(number)
            while not over.is_set():
                try:
                    name, fault = own.ask(chosen)
                except requests.RequestException as error:
                    name, fault = "no answer", f"after {time.monotonic() - started:.0f} s: {error!r}"[:1000]
                tally[name] += 1
                if fault:
                    faults.append(f"{name}: {fault}")

        readings: list[dict[str, float]] = []
        started = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            try:
                while (share := (time.monotonic() - started) / (60 * minutes)) < 1 and tally.total() < REQUESTS:
                    readings.append(_reading(watched))
                    seen(max(share, tally.total() / REQUESTS))
                    over.wait(min(_EVERY, minutes))
            finally:
                over.set()
            for each in clients:
                each.result()
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
    """What the worker says of itself once nobody is there but one who asks for predictions."""
    deadline = time.monotonic() + 60
    while True:
        requests.post(f"{server.inference}/predictions/{archives.NAME}", data=photographs()["coffee"], timeout=60)
        left = server.metric("heatserve_explanations_under_way")
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)
