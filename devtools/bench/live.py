"""Predictions beside explanations: TorchServe's ordinary mode and continuous batching, side by side in one run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from devtools.bench import archives
from devtools.bench.crowd import Crowd
from devtools.bench.endpoint import EXPLANATIONS, PREDICTIONS, SMOOTHGRAD, Endpoint
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, interleave, ratio, timed
from devtools.bench.tails import p95_ms, tail_ratio
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.packaging.configuration import CONTINUOUS
from heatserve_tools.torchserve.server import Server

ORDINARY, LIVE = "ordinary", "continuous"
SAMPLES = 50
CLIENTS = 8
#: Seconds between two requests of the client whose latency is measured.
PAUSE = 0.05
#: Seconds after which the requests of a crowd are under way.
UNDER_WAY = 1.0
#: As many explanations as clients ask for: the suite measures how they share the server, not how they are refused.
ROOM = {"explain": {"method": "gradcam", "max_batch_work": 10_000}}

#: The settings of each mode.
MODES: Mapping[str, Mapping[str, object]] = {
    ORDINARY: {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 10},
    LIVE: CONTINUOUS,
}

Endpoints = Mapping[str, Endpoint]


@dataclass(frozen=True)
class Effort:
    """The length of the measurement.

    rounds: of every part.
    seconds: the shortest window in which latencies are measured.
    crowds: the numbers of SmoothGrad clients.
    methods: those of which one client each is measured beside predictions, instead of SmoothGrad; empty for SmoothGrad.
    """

    rounds: int
    seconds: float
    crowds: tuple[int, ...] = (1, 4, 8, 16)
    methods: tuple[str, ...] = ()


QUICK = Effort(1, 6.0, (1, 4))
DEFAULT = Effort(3, 15.0)


@contextmanager
def both() -> Iterator[Endpoints]:
    """A server of each mode with the same archive, idle unless asked."""
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch, ExitStack() as stack:
        archive = archives.ours(Path(scratch))
        endpoints = {}
        for mode, settings in MODES.items():
            unpacked = archives.configured(archive, mode, {**settings, **ROOM, "responseTimeout": 600})
            server = stack.enter_context(Server({archives.NAME: unpacked}))
            endpoint = endpoints[mode] = Endpoint(server, photographs()["chelsea"])
            endpoint.ask(PREDICTIONS)
            endpoint.ask(EXPLANATIONS)
            endpoint.ask(EXPLANATIONS, SMOOTHGRAD)
        yield endpoints


def measure(effort: Effort, progress: Progress) -> list[Result]:
    """The figures of continuous batching, each beside the ordinary mode's."""
    parts: tuple[Callable[[Endpoints, Effort, Progress], list[Result]], ...]
    parts = (_beside_methods,) if effort.methods else (_latencies, _throughput, _saturated, _pace)
    with both() as endpoints:
        results = []
        for number, part in enumerate(parts):
            results += part(endpoints, effort, lambda share, n=number: progress((n + share) / len(parts)))
        return results


def _latencies(endpoints: Endpoints, effort: Effort, progress: Progress) -> list[Result]:
    """One client with a pause between its requests, beside nobody and beside crowds that ask for SmoothGrad."""
    windows = [(0, PREDICTIONS), (0, EXPLANATIONS), (4, EXPLANATIONS)]
    windows += [(size, PREDICTIONS) for size in effort.crowds]
    found: dict[tuple[str, int, str], list[list[float]]] = {}
    total, done = effort.rounds * len(endpoints) * len(windows), 0
    for _ in range(effort.rounds):
        for size, api in windows:
            for mode, endpoint in endpoints.items():
                crowd = [partial(endpoint.ask, EXPLANATIONS, SMOOTHGRAD)] * size
                found.setdefault((mode, size, api), []).append(window(endpoint, api, effort.seconds, crowd))
                done += 1
                progress(done / total)
    results = []
    for size, api in windows[2:]:
        for mode in (LIVE, ORDINARY):
            beside, quiet = found[mode, size, api], found[mode, 0, api]
            results.append(
                Result.of(
                    f"{_NAMES[api]} beside {_smoothgrad_clients(size)}: p95 against quiet ({mode})",
                    tail_ratio(beside, quiet),
                    2.5 if mode == LIVE else None,
                    quiet_p95_ms=p95_ms(quiet),
                    beside_p95_ms=p95_ms(beside),
                    beside_median_ms=round(1000 * statistics.median([*chain(*beside)]), 1),
                    requests=len([*chain(*beside)]),
                )
            )
    return results


def _beside_methods(endpoints: Endpoints, effort: Effort, progress: Progress) -> list[Result]:
    """Predictions beside nobody, and beside one client of each method, in continuous batching."""
    endpoint = endpoints[LIVE]
    asks: dict[str, list[Callable[[], object]]] = {"": []}
    for name in effort.methods:
        asks[name] = [partial(endpoint.ask, EXPLANATIONS, {"X-Explain-Method": name})]
    found: dict[str, list[list[float]]] = {name: [] for name in asks}
    for index in range(effort.rounds):
        for number, (name, crowd) in enumerate(asks.items()):
            found[name].append(window(endpoint, PREDICTIONS, effort.seconds, crowd))
            progress((index + (number + 1) / len(asks)) / effort.rounds)
    quiet = found.pop("")
    return [
        Result.of(
            f"a prediction beside one client of {name}: p95 against quiet ({LIVE})",
            tail_ratio(beside, quiet),
            2.5,
            quiet_p95_ms=p95_ms(quiet),
            beside_p95_ms=p95_ms(beside),
            quiet_median_ms=round(1000 * statistics.median([*chain(*quiet)]), 1),
            beside_median_ms=round(1000 * statistics.median([*chain(*beside)]), 1),
            requests=len([*chain(*beside)]),
        )
        for name, beside in found.items()
    ]


_NAMES = {PREDICTIONS: "a prediction", EXPLANATIONS: "a Grad-CAM"}


def _smoothgrad_clients(count: int) -> str:
    return f"{count} SmoothGrad client{'s' * (count > 1)}"


def window(endpoint: Endpoint, api: str, seconds: float, asks: Sequence[Callable[[], object]]) -> list[float]:
    """The latencies of one client for so many seconds, while a crowd is busy. asks: of the crowd's clients."""
    ask = timed(lambda: endpoint.ask(api))
    with Crowd(asks) as crowd, crowd.busy() as stopped:
        time.sleep(UNDER_WAY if asks else 0.0)
        found: list[float] = []
        started = time.perf_counter()
        while not found or (time.perf_counter() - started < seconds and not stopped.is_set()):
            found.append(ask())
            time.sleep(PAUSE)
        return found


def _throughput(endpoints: Endpoints, effort: Effort, progress: Progress) -> list[Result]:
    """Predictions a second of eight clients, nothing else going on."""
    found = _bursts(endpoints, PREDICTIONS, {}, CLIENTS, 6, 8 * effort.seconds, 4 * effort.rounds, 1, progress)
    what = f"predictions a second, {CLIENTS} clients and no explanations: continuous against ordinary"
    return [_faster(what, found, 1.0, 6 * CLIENTS)]


def _saturated(endpoints: Endpoints, effort: Effort, progress: Progress) -> list[Result]:
    """One SmoothGrad alone, and beside eight clients that ask for predictions without a pause."""
    alone: dict[str, list[float]] = {mode: [] for mode in endpoints}
    beside: dict[str, list[float]] = {mode: [] for mode in endpoints}
    for index in range(effort.rounds):
        for mode, endpoint in endpoints.items():
            smoothgrad = timed(partial(endpoint.ask, EXPLANATIONS, SMOOTHGRAD))
            alone[mode].append(smoothgrad())
            with Crowd([partial(endpoint.ask, PREDICTIONS)] * CLIENTS) as crowd, crowd.busy():
                time.sleep(UNDER_WAY)
                beside[mode].append(smoothgrad())
        progress((index + 1) / effort.rounds)
    return [
        Result.of(
            f"one SmoothGrad beside {CLIENTS} clients that saturate predictions: against alone ({mode})",
            ratio(beside[mode], alone[mode]),
            6.0 if mode == LIVE else None,
            alone_s=round(statistics.median(alone[mode]), 2),
            beside_s=round(statistics.median(beside[mode]), 2),
        )
        for mode in (LIVE, ORDINARY)
    ]


def _pace(endpoints: Endpoints, effort: Effort, progress: Progress) -> list[Result]:
    """Samples a second where crowds ask for SmoothGrad and nobody for predictions."""
    results = []
    sizes = [size for size in effort.crowds if size != 8]
    for number, size in enumerate(sizes):
        rounds = effort.rounds * (3 if size == 1 else 1)

        def share(done: float, number: int = number) -> None:
            progress((number + done) / len(sizes))

        found = _bursts(endpoints, EXPLANATIONS, SMOOTHGRAD, size, 1, 0, rounds, 0, share)
        what = f"samples a second, {_smoothgrad_clients(size)}: continuous against ordinary"
        results.append(_faster(what, found, 0.9, size * SAMPLES))
    return results


def _bursts(
    endpoints: Endpoints,
    api: str,
    options: Mapping[str, str],
    clients: int,
    each: int,
    seconds: float,
    rounds: int,
    warm_up: int,
    progress: Progress,
) -> dict[str, list[float]]:
    """The seconds of each mode's bursts, in interleaved rounds. each: the requests of one client in a burst."""
    with ExitStack() as stack:
        contestants = {}
        for mode, endpoint in endpoints.items():
            crowd = stack.enter_context(Crowd([partial(endpoint.ask, api, options)] * clients))
            contestants[mode] = lambda crowd=crowd: crowd.burst(each).seconds
        return interleave(contestants, seconds, least=rounds, warm_up=warm_up, progress=progress)


def _faster(what: str, found: Mapping[str, list[float]], least: float, units: int) -> Result:
    """The rates of the two modes, compared. units: the number that each burst makes, of the thing that is counted."""
    rates = {f"{mode}_per_second": round(units / statistics.median(seconds), 2) for mode, seconds in found.items()}
    return Result.of(what, ratio(found[ORDINARY], found[LIVE]), least=least, **rates)
