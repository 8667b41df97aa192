"""Predictions of one client where the processor is short: beside another process, and under a quota of cores.

This handler and the stock one serve the same weights, with each setting of OpenMP in the server's environment.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from devtools.bench import archives
from devtools.bench.endpoint import PREDICTIONS, Endpoint
from devtools.bench.neighbour import Neighbour
from devtools.bench.quota import Group, quota
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, ratio
from devtools.bench.servers import same
from devtools.bench.tails import tail_ratio
from devtools.bench.turns import Rounds, medians, summary, take
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

NETWORK = "lite0"
OURS, STOCK = "ours", "stock"
#: Variables of the server, by a name for the table. Those of this process are taken away.
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    # What GNU's OpenMP does by itself; the launcher may decide otherwise where a variable does not.
    "OpenMP's default": {"GOMP_SPINCOUNT": "300000"},
    "the launcher's setting": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
    "passive and one thread": {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"},
}
_CLEARED = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT")
QUIET, BESIDE = "quiet", "beside another process with two threads"
NEIGHBOURS = 2
#: Cores' worth of processor time.
QUOTAS = (1.0, 1.5)
#: Requests in a row before the next server's turn.
REQUESTS = 12

#: By the handler and the environment.
Endpoints = Mapping[tuple[str, str], Endpoint]
Found = Mapping[tuple[str, str], Rounds]


def unlimited(seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """All cores: alone, and beside another process that uses them too."""
    with served(None) as endpoints, Neighbour(NEIGHBOURS) as neighbour:
        quiet = _take(endpoints, seconds / 2, rounds, lambda share: progress(share / 2))
        with neighbour.working():
            beside = _take(endpoints, seconds / 2, rounds, lambda share: progress((1 + share) / 2))
    return results(QUIET, quiet) + results(BESIDE, beside) + tails(BESIDE, beside, quiet)


def limited(cores: float, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """A quota of so many cores, for each server by itself. Raises Unavailable where no quota can be set."""
    with quota(cores) as group, served(group) as endpoints:
        return results(f"quota of {cores:g} cores", _take(endpoints, seconds, rounds, progress))


@contextmanager
def served(group: Group | None) -> Iterator[Endpoints]:
    """A server for each handler and environment, idle unless asked.

    group: they share its quota, of which an idle server takes next to nothing.
    """
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch, ExitStack() as stack:
        unpacked = {OURS: archives.ours(Path(scratch), NETWORK), STOCK: archives.stock(Path(scratch), NETWORK)}
        ready = {name: archives.batching(archive, 1) for name, archive in unpacked.items()}
        endpoints: dict[tuple[str, str], Endpoint] = {}
        for environment, variables in ENVIRONMENTS.items():
            for name, archive in ready.items():
                with group.starting() if group else nullcontext(), without(*_CLEARED):
                    server = stack.enter_context(Server({archives.NAME: archive}, env=variables))
                endpoints[name, environment] = Endpoint(server, photographs()["chelsea"])
            same(*(endpoints[name, environment].ask(PREDICTIONS).json() for name in (OURS, STOCK)))
        yield endpoints


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Variables are not in this process's environment while the block runs."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _take(endpoints: Endpoints, seconds: float, rounds: int, progress: Progress) -> dict[tuple[str, str], Rounds]:
    names = {f"{environment}, {name}": (name, environment) for name, environment in endpoints}
    asks: dict[str, Callable[[], object]] = {
        name: partial(endpoints[key].ask, PREDICTIONS) for name, key in names.items()
    }
    found = take(asks, REQUESTS, seconds, rounds, progress)
    return {names[name]: latencies for name, latencies in found.items()}


def results(where: str, found: Found) -> list[Result]:
    """For each environment the medians of both handlers, compared, and their percentiles."""
    lines = []
    for environment in ENVIRONMENTS:
        ours, stock = found[OURS, environment], found[STOCK, environment]
        about = {**summary(ours, OURS), **summary(stock, STOCK)}
        what = f"prediction, {where}, {environment}"
        lines += [
            Result.of(f"{what}: median against the stock handler's ({NETWORK})", ratio(medians(ours), medians(stock))),
            *(
                Result(f"{what}: p{share} of {said} ({NETWORK})", about[f"{key}_p{share}_ms"], "ms")
                for key, said in ((OURS, "this handler"), (STOCK, "the stock handler"))
                for share in (50, 95)
            ),
        ]
    return lines


def tails(where: str, found: Found, quiet: Found) -> list[Result]:
    """For each environment the 95th percentile against a quiet server's with OpenMP's default."""
    return [
        Result.of(
            f"prediction, {where}, {environment}: p95 against quiet ({NETWORK})",
            tail_ratio(found[OURS, environment], quiet[OURS, next(iter(ENVIRONMENTS))]),
        )
        for environment in ENVIRONMENTS
    ]
