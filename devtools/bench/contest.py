"""Bursts of requests to two servers, which take turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from devtools.bench.bursts import FRONTEND, WORKER, Burst
from devtools.bench.crowd import Locust
from devtools.bench.rounds import Progress, interleave
from heatserve_tools.torchserve import server_log
from heatserve_tools.torchserve.server import Server


@dataclass(frozen=True)
class Load:
    """The requests of one burst.

    api: `predictions` or `explanations`.
    count: the requests of all clients together.
    """

    server: Server
    model: str
    api: str
    clients: int
    count: int


def contest(
    locust: Locust, loads: Mapping[str, Load], seconds: float, rounds: int, progress: Progress
) -> dict[str, list[Burst]]:
    """The bursts of each load, one a round, for so many seconds and at least so many rounds."""
    contestants = {name: _Contestant(locust, load) for name, load in loads.items()}
    found = interleave(contestants, seconds, warm_up=2, least=rounds, progress=progress)
    return {name: contestants[name].last(len(values)) for name, values in found.items()}


class _Contestant:
    """A measure of one load: a call sends one burst, keeps it, and gives its seconds."""

    def __init__(self, locust: Locust, load: Load) -> None:
        self._locust, self._load = locust, load
        (worker,) = load.server.worker_pids(load.model)
        self._processes = {WORKER: psutil.Process(worker), FRONTEND: psutil.Process(load.server.pid)}
        self._bursts: list[Burst] = []

    def __call__(self) -> float:
        load = self._load
        batches, cpu = self._batches(), self._cpu()
        burst = self._locust.burst(f"{load.server.inference}/{load.api}/{load.model}", load.clients, load.count)
        used = {name: seconds - cpu[name] for name, seconds in self._cpu().items()}
        self._bursts.append(replace(burst, cpu=used, batches=self._batches() - batches))
        return burst.seconds

    def last(self, rounds: int) -> list[Burst]:
        return self._bursts[-rounds:]

    def _cpu(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}

    def _batches(self) -> int:
        return server_log.batches(self._load.server.log(), self._load.model)
