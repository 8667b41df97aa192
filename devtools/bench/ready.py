"""The time until a worker can answer, by the server's log of its starts."""

from __future__ import annotations

import statistics

import requests

from devtools.bench.results import Result
from devtools.bench.rounds import Measure, Progress, interleave, ratio
from heatserve_tools.torchserve import server_log
from heatserve_tools.torchserve.server import Server

LIMIT = 1.3
TIMEOUT = 300


def measure(ours: Server, stock: Server, model: str, network: str, rounds: int, progress: Progress) -> list[Result]:
    """Starts the model's one worker in both servers in turn, so many times; Java and the page cache are warm."""
    contestants = {"ours": _start(ours, model), "stock": _start(stock, model)}
    found = interleave(contestants, 0, warm_up=0, least=rounds, progress=progress)
    medians = {f"{name}_median_s": round(statistics.median(seconds), 3) for name, seconds in found.items()}
    return [
        Result.of(
            f"time until a worker is ready: against the stock handler ({network})",
            ratio(found["ours"], found["stock"]),
            LIMIT,
            **medians,
        )
    ]


def _start(server: Server, model: str) -> Measure:
    """Ends the worker and has it started again. Measures from the start of its process until the model is loaded."""

    def run() -> float:
        before = len(server_log.seconds_to_ready(server.log(), model))
        for workers in (0, 1):
            response = requests.put(
                f"{server.management}/models/{model}",
                params={"min_worker": workers, "max_worker": workers, "synchronous": "true"},
                timeout=TIMEOUT,
            )
            response.raise_for_status()
        server.wait_ready(model, TIMEOUT)
        (seconds,) = server_log.seconds_to_ready(server.log(), model)[before:]
        return seconds

    return run
