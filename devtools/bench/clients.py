"""Grad-CAM explanations through a real TorchServe, against the number of clients that ask at once."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devtools.bench import archives, servers
from devtools.bench.results import Result
from devtools.bench.rounds import Measure, Seen, interleave
from devtools.bench.series import Line, Series
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
BATCH = 8
#: Requests of a burst at least; every client asks twice at least.
REQUESTS = 16


def over_clients(seconds: float, rounds: int, seen: Seen, clients: Sequence[int] = CLIENTS) -> list[Result]:
    """Throughput and median latency, against those of one client in the same round."""
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        archive = archives.batching(archives.ours(Path(scratch)), BATCH)
        with Server({archives.NAME: archive}) as server:
            client = servers.Client(server, photographs()["chelsea"])
            return of_asking(lambda: client.post("explanations"), seconds, rounds, seen, clients)


def of_asking(
    ask: Callable[[], object], seconds: float, rounds: int, seen: Seen, clients: Sequence[int]
) -> list[Result]:
    """The same of anything that can be asked from several threads."""
    with ThreadPoolExecutor(max(clients)) as pool:
        contestants: dict[str, Measure] = {}
        for count in clients:
            burst = Burst(ask, count, pool)
            # In this order: the latency is that of the burst before.
            contestants |= {f"each {count}": burst.each, f"latency {count}": burst.latency}
        found = interleave(contestants, seconds, warm_up=1, least=rounds, seen=seen)
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


class Burst:
    """So many clients that ask at once, one request after the other."""

    def __init__(self, ask: Callable[[], object], clients: int, pool: ThreadPoolExecutor) -> None:
        self._ask, self._clients, self._pool = ask, clients, pool
        self._requests = max(2, -(-REQUESTS // clients))
        self._latencies: list[float] = []

    def each(self) -> float:
        """Asks, and gives the seconds that went by for each answer: the inverse of the throughput."""
        started = time.perf_counter()
        answered = list(self._pool.map(self._client, range(self._clients)))
        elapsed = time.perf_counter() - started
        self._latencies = [seconds for client in answered for seconds in client]
        return elapsed / len(self._latencies)

    def latency(self) -> float:
        """The median seconds that an answer of the last burst took."""
        return statistics.median(self._latencies)

    def _client(self, _: int) -> list[float]:
        found = []
        for _ in range(self._requests):
            started = time.perf_counter()
            self._ask()
            found.append(time.perf_counter() - started)
        return found


def _line(name: str, what: str, clients: Sequence[int], found: Mapping[str, Sequence[float]]) -> Line:
    return Line.of(name, clients, found, [f"{what} {count}" for count in clients], f"{what} {clients[0]}")
