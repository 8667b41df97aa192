"""Predictions beside explanations: TorchServe's ordinary mode and continuous batching, side by side in one run."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from devtools.bench import archives
from devtools.bench.results import Result
from devtools.bench.rounds import Measure, Ratio, Seen, interleave, ratio
from devtools.bench.servers import Client
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.packaging.packager import CONTINUOUS
from heatserve_tools.torchserve.server import Server

ORDINARY, LIVE = "ordinary", "continuous"
SMOOTHGRAD = {"X-Explain-Method": "smoothgrad"}
SAMPLES = 50
CLIENTS = 8
PAUSE = 0.05
#: As many explanations as clients ask for: what is measured is how they share, not how they are refused.
ROOM = {"explain": {"method": "gradcam", "max_batch_work": 10_000}}


@dataclass(frozen=True)
class Effort:
    """rounds of everything; seconds that a window of latencies lasts at least; crowds of SmoothGrad clients."""

    rounds: int
    seconds: float
    crowds: tuple[int, ...] = (1, 4, 8, 16)


QUICK = Effort(1, 6.0, (1, 4))
DEFAULT = Effort(3, 15.0)


@contextmanager
def both() -> Iterator[dict[str, Client]]:
    """A server of each mode with the same archive, idle unless asked."""
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch, ExitStack() as stack:
        archive = archives.ours(Path(scratch))
        modes = {
            ORDINARY: {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 10},
            LIVE: CONTINUOUS,
        }
        clients = {}
        for mode, settings in modes.items():
            unpacked = archives.configured(archive, mode, {**settings, **ROOM, "responseTimeout": 600})
            server = stack.enter_context(Server({archives.NAME: unpacked}))
            clients[mode] = Client(server, photographs()["chelsea"])
            for what in ("predictions", "explanations"):
                clients[mode].post(what)
            clients[mode].post("explanations", SMOOTHGRAD)
        yield clients


def measure(effort: Effort, seen: Seen) -> list[Result]:
    """The figures of continuous batching, each beside the ordinary mode's."""
    parts: tuple[Callable[[dict[str, Client], Effort, Seen], list[Result]], ...]
    parts = (_latencies, _throughput, _saturated, _pace)
    with both() as clients:
        results = []
        for number, part in enumerate(parts):
            results += part(clients, effort, lambda share, n=number: seen((n + share) / len(parts)))
        return results


def _latencies(clients: dict[str, Client], effort: Effort, seen: Seen) -> list[Result]:
    """One client with a pause between its requests, beside none and beside crowds that ask for SmoothGrad."""
    windows = [(0, "predictions"), (0, "explanations"), (4, "explanations")]
    windows += [(crowd, "predictions") for crowd in effort.crowds]
    found: dict[tuple[str, int, str], list[list[float]]] = {}
    total, done = effort.rounds * len(clients) * len(windows), 0
    for _ in range(effort.rounds):
        for crowd, what in windows:
            for mode, client in clients.items():
                found.setdefault((mode, crowd, what), []).append(_window(client, crowd, what, effort.seconds))
                done += 1
                seen(done / total)
    results = []
    for crowd, what in windows[2:]:
        for mode in (LIVE, ORDINARY):
            beside, quiet = found[mode, crowd, what], found[mode, 0, what]
            results.append(
                Result.of(
                    f"{_NAMES[what]} beside {crowd} SmoothGrad client{'s' * (crowd > 1)}: p95 against quiet ({mode})",
                    tail_ratio(beside, quiet),
                    2.5 if mode == LIVE else None,
                    quiet_p95_ms=_p95(quiet),
                    beside_p95_ms=_p95(beside),
                    beside_median_ms=round(1000 * statistics.median([*chain(*beside)]), 1),
                    requests=len([*chain(*beside)]),
                )
            )
    return results


_NAMES = {"predictions": "a prediction", "explanations": "a Grad-CAM"}


def _window(client: Client, size: int, what: str, seconds: float) -> list[float]:
    return window(client, what, seconds, size, lambda: client.post("explanations", SMOOTHGRAD))


def window(client: Client, what: str, seconds: float, size: int, ask: Callable[[], object]) -> list[float]:
    """The latencies of one client while all of a crowd are at work."""
    with _crowd(size, ask) as left:
        found: list[float] = []
        started = time.perf_counter()
        while not found or (time.perf_counter() - started < seconds and not left.is_set()):
            asked = time.perf_counter()
            client.post(what)
            found.append(time.perf_counter() - asked)
            time.sleep(PAUSE)
        return found


@contextmanager
def _crowd(size: int, ask: Callable[[], object]) -> Iterator[threading.Event]:
    """So many clients that ask one time after the other; the event is set when one has left."""
    stop, left = threading.Event(), threading.Event()

    def asks() -> None:
        while not stop.is_set():
            ask()
        left.set()

    with ThreadPoolExecutor(max(1, size)) as pool:
        asking = [pool.submit(asks) for _ in range(size)]
        try:
            # The window opens when the explanations are under way.
            time.sleep(1.0 if size else 0.0)
            yield left
        finally:
            stop.set()
            for each in asking:
                each.result()


def _throughput(clients: dict[str, Client], effort: Effort, seen: Seen) -> list[Result]:
    """Predictions a second of eight clients, nothing else going on."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        contestants = {mode: _burst(client, pool) for mode, client in clients.items()}
        found = interleave(contestants, 8 * effort.seconds, least=4 * effort.rounds, warm_up=1, seen=seen)
    return [
        Result.of(
            f"predictions a second, {CLIENTS} clients and no explanations: continuous against ordinary",
            ratio(found[ORDINARY], found[LIVE]),
            least=1.0,
            **{f"{mode}_per_second": round(_BURST / statistics.median(found[mode]), 2) for mode in clients},
        )
    ]


_EACH = 6
_BURST = CLIENTS * _EACH


def _burst(client: Client, pool: ThreadPoolExecutor) -> Measure:
    """The seconds that so many predictions take."""

    def ask(_: int) -> None:
        for _ in range(_EACH):
            client.post("predictions")

    def run() -> float:
        started = time.perf_counter()
        list(pool.map(ask, range(CLIENTS)))
        return time.perf_counter() - started

    return run


def _saturated(clients: dict[str, Client], effort: Effort, seen: Seen) -> list[Result]:
    """One SmoothGrad alone, and beside eight clients that ask for predictions without a pause."""
    alone: dict[str, list[float]] = {mode: [] for mode in clients}
    beside: dict[str, list[float]] = {mode: [] for mode in clients}
    for index in range(effort.rounds):
        for mode, client in clients.items():
            alone[mode].append(_smoothgrad(client))
            beside[mode].append(_besieged(client))
        seen((index + 1) / effort.rounds)
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


def _smoothgrad(client: Client) -> float:
    started = time.perf_counter()
    client.post("explanations", SMOOTHGRAD)
    return time.perf_counter() - started


def _besieged(client: Client) -> float:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            client.post("predictions")

    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask) for _ in range(CLIENTS)]
        try:
            time.sleep(1.0)
            return _smoothgrad(client)
        finally:
            stop.set()
            for each in asking:
                each.result()


def _pace(clients: dict[str, Client], effort: Effort, seen: Seen) -> list[Result]:
    """Samples a second where crowds ask for SmoothGrad and nobody for predictions."""
    results = []
    crowds = [crowd for crowd in effort.crowds if crowd != 8]
    for number, crowd in enumerate(crowds):
        with ThreadPoolExecutor(crowd) as pool:
            contestants = {mode: _together(client, crowd, pool) for mode, client in clients.items()}
            rounds = effort.rounds * (3 if crowd == 1 else 1)
            found = interleave(
                contestants, 0, least=rounds, warm_up=0, seen=lambda s, n=number: seen((n + s) / len(crowds))
            )
        results.append(
            Result.of(
                f"samples a second, {crowd} SmoothGrad client{'s' * (crowd > 1)}: continuous against ordinary",
                ratio(found[ORDINARY], found[LIVE]),
                least=0.9,
                **{f"{m}_per_second": round(crowd * SAMPLES / statistics.median(found[m]), 2) for m in clients},
            )
        )
    return results


def _together(client: Client, crowd: int, pool: ThreadPoolExecutor) -> Measure:
    def run() -> float:
        started = time.perf_counter()
        list(pool.map(lambda _: client.post("explanations", SMOOTHGRAD), range(crowd)))
        return time.perf_counter() - started

    return run


def tail_ratio(beside: list[list[float]], quiet: list[list[float]], resamples: int = 4000) -> Ratio:
    """p95 against p95 over all windows; the interval by bootstrap over the single latencies (Efron 1979)."""
    generator = np.random.default_rng(0)

    def tails(windows: list[list[float]]) -> Any:
        values = np.asarray([*chain(*windows)])
        draws = generator.choice(values, size=(resamples, len(values)))
        return np.percentile(draws, 95, axis=1)

    low, high = np.percentile(tails(beside) / tails(quiet), [2.5, 97.5])
    value = np.percentile([*chain(*beside)], 95) / np.percentile([*chain(*quiet)], 95)
    return Ratio(float(value), float(low), float(high), len(beside))


def _p95(windows: list[list[float]]) -> float:
    return round(1000 * float(np.percentile([*chain(*windows)], 95)), 1)
