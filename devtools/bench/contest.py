"""Kinds of requests to two servers, in bursts that take turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from devtools.bench.bursts import FRONTEND, WORKER, Burst
from devtools.bench.crowd import Crowd
from devtools.bench.rounds import Seen, interleave
from heatserve_tools.torchserve import server_log
from heatserve_tools.torchserve.server import Server


@dataclass(frozen=True)
class Kind:
    """what: `predictions` or `explanations`. count: the requests of one burst, of all clients together."""

    server: Server
    model: str
    what: str
    clients: int
    count: int


def contest(crowd: Crowd, kinds: Mapping[str, Kind], seconds: float, rounds: int, seen: Seen) -> dict[str, list[Burst]]:
    """The bursts of each kind, one a round, for so many seconds and at least so many rounds."""
    contestants = {name: _Contestant(crowd, kind) for name, kind in kinds.items()}
    found = interleave(contestants, seconds, warm_up=2, least=rounds, seen=seen)
    return {name: contestants[name].last(len(values)) for name, values in found.items()}


class _Contestant:
    """A call is one burst: its seconds; what it saw is kept."""

    def __init__(self, crowd: Crowd, kind: Kind) -> None:
        self._crowd, self._kind = crowd, kind
        (worker,) = kind.server.worker_pids(kind.model)
        self._processes = {WORKER: psutil.Process(worker), FRONTEND: psutil.Process(kind.server.pid)}
        self._seen: list[Burst] = []

    def __call__(self) -> float:
        kind = self._kind
        batches, cpu = self._batches(), self._cpu()
        burst = self._crowd.burst(f"{kind.server.inference}/{kind.what}/{kind.model}", kind.clients, kind.count)
        used = {name: seconds - cpu[name] for name, seconds in self._cpu().items()}
        self._seen.append(replace(burst, cpu=used, batches=self._batches() - batches))
        return burst.seconds

    def last(self, rounds: int) -> list[Burst]:
        return self._seen[-rounds:]

    def _cpu(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}

    def _batches(self) -> int:
        return server_log.batches(self._kind.server.log(), self._kind.model)
