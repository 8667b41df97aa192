"""Grad-CAM explanations through a real TorchServe, against the number of clients that ask at once."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from devtools.bench import archives
from devtools.bench.bursts import Burst
from devtools.bench.crowd import Crowd
from devtools.bench.endpoint import EXPLANATIONS, Endpoint
from devtools.bench.results import Result
from devtools.bench.rounds import Measure, Progress, interleave
from devtools.bench.series import Line, Series
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
BATCH = 8
#: Requests of a burst at least; every client sends two at least.
REQUESTS = 16


def over_clients(seconds: float, rounds: int, progress: Progress, clients: Sequence[int] = CLIENTS) -> list[Result]:
    """Throughput and median latency, against those of one client in the same round."""
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        archive = archives.batching(archives.ours(Path(scratch)), BATCH)
        with Server({archives.NAME: archive}) as server:
            endpoint = Endpoint(server, photographs()["chelsea"])
            return of_asking(lambda: endpoint.ask(EXPLANATIONS), seconds, rounds, progress, clients)


def of_asking(
    ask: Callable[[], object], seconds: float, rounds: int, progress: Progress, clients: Sequence[int]
) -> list[Result]:
    """The same of any request. ask: sends one, and is called by several threads."""
    latest: dict[int, Burst] = {}

    def per_answer(count: int) -> float:
        latest[count] = crowd.burst(max(2, -(-REQUESTS // count)), count)
        return latest[count].seconds / len(latest[count].latencies)

    def latency_of(count: int) -> float:
        return statistics.median(latest[count].latencies)

    with Crowd([ask] * max(clients)) as crowd:
        contestants: dict[str, Measure] = {}
        for count in clients:
            # In this order: the latency is that of the burst before.
            contestants[f"each {count}"] = partial(per_answer, count)
            contestants[f"latency {count}"] = partial(latency_of, count)
        found = interleave(contestants, seconds, warm_up=1, least=rounds, progress=progress)
    # The more answers a second, the less time each takes.
    rates = {key: [1 / value for value in values] for key, values in found.items()}
    throughput = _line("explanations a second", "each", clients, rates)
    latency = _line("median latency", "latency", clients, found)
    shown = Series(
        f"Grad-CAM through TorchServe against the number of clients (batchSize {BATCH})",
        "clients that ask at once",
        "against one client",
        (throughput, latency),
        reference=1.0,
    )
    last = clients[-1]
    sentence = (
        f"{last} clients get {throughput.growth.median:.2f} × as many explanations a second as one, and wait "
        f"{latency.growth.median:.1f} × as long for each: the median latency grows with the number of clients as "
        f"N^{latency.exponent.median:.2f}."
    )
    median = {
        f"{count}_clients_median_ms": round(1000 * statistics.median(found[f"latency {count}"]), 1) for count in clients
    }
    return [
        Result.of(
            f"Grad-CAM explanations a second, {last} clients against one (lite0, batchSize {BATCH})",
            throughput.growth,
            **shown.detail(sentence, **median),
        ),
        Result.of(f"Grad-CAM: median latency, {last} clients against one (lite0, batchSize {BATCH})", latency.growth),
    ]


def _line(name: str, measure: str, clients: Sequence[int], found: Mapping[str, Sequence[float]]) -> Line:
    return Line.of(name, clients, found, [f"{measure} {count}" for count in clients], f"{measure} {clients[0]}")
