"""`/predictions` through this handler against the stock `image_classifier`, in two TorchServes side by side."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import requests

from devtools.bench import archives
from devtools.bench.results import Result
from devtools.bench.rounds import Measure, Seen, interleave, ratio
from devtools.demo import photographs
from devtools.torchserve import Server

LIMIT = 1.05
CLIENTS = 8
HEADERS = {"Content-Type": "application/octet-stream"}


class Differs(RuntimeError):
    """The two handlers did not do the same work."""


class Client:
    """One client of one server, with its own connection in each thread."""

    def __init__(self, server: Server, image: bytes) -> None:
        self._server, self._image = server, image
        self._local = threading.local()

    def post(self, what: str, options: Mapping[str, str] | None = None) -> requests.Response:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        url = f"{self._server.inference}/{what}/{archives.NAME}"
        headers = {**HEADERS, **(options or {})}
        response: requests.Response = self._local.session.post(url, data=self._image, headers=headers, timeout=600)
        response.raise_for_status()
        return response

    def latency(self) -> float:
        """The seconds of one prediction."""
        started = time.perf_counter()
        self.post("predictions")
        return time.perf_counter() - started


def measure(seconds: float, seen: Seen) -> list[Result]:
    """Latency with one client and with eight, and the size of an explanation."""
    image = photographs()["chelsea"]
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        pair = (archives.ours(Path(scratch)), archives.stock(Path(scratch)))
        results = _pair(pair, 1, image, lambda ours, stock: _single(ours, stock, seconds, _half(seen, 0)))
        results += _pair(pair, CLIENTS, image, lambda ours, stock: _crowd(ours, stock, seconds, _half(seen, 1)))
    return results


def _pair(
    pair: tuple[Path, Path],
    batch_size: int,
    image: bytes,
    run: Callable[[Client, Client], list[Result]],
) -> list[Result]:
    """Serves both archives with one batch size, sees that they predict the same, and runs a measurement."""
    with ExitStack() as stack:
        ours, stock = (
            Client(stack.enter_context(Server({archives.NAME: archives.batching(archive, batch_size)})), image)
            for archive in pair
        )
        _same(ours.post("predictions").json(), stock.post("predictions").json())
        return run(ours, stock)


def _same(ours: dict[str, float], stock: dict[str, float]) -> None:
    if list(ours) != list(stock) or any(abs(ours[label] - stock[label]) > 1e-5 for label in stock):
        raise Differs(f"the predictions differ, so their latencies say nothing: {ours} and {stock}")


def _single(ours: Client, stock: Client, seconds: float, seen: Seen) -> list[Result]:
    found = interleave({"ours": ours.latency, "stock": stock.latency}, seconds, warm_up=20, least=30, seen=seen)
    lengths = {name: len(client.post("explanations").content) for name, client in _both(ours, stock)}
    return [
        Result.of(
            "prediction, one client: latency against the stock handler (lite0, batchSize 1)",
            ratio(found["ours"], found["stock"]),
            LIMIT,
            **_medians(found),
        ),
        Result(
            "explanation, Grad-CAM as JSON: size against the stock handler's",
            lengths["ours"] / lengths["stock"],
            detail={"bytes": lengths["ours"], "stock_bytes": lengths["stock"]},
        ),
        Result("explanation, Grad-CAM as JSON: size", lengths["ours"] / 1000, "kB"),
        Result("explanation of the stock handler: size", lengths["stock"] / 1000, "kB"),
    ]


def _crowd(ours: Client, stock: Client, seconds: float, seen: Seen) -> list[Result]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        contestants = {name: _burst(client, pool) for name, client in _both(ours, stock)}
        found = interleave(contestants, seconds, least=20, seen=seen)
    return [
        Result.of(
            f"prediction, {CLIENTS} clients: median latency of a round against the stock handler "
            f"(lite0, batchSize {CLIENTS})",
            ratio(found["ours"], found["stock"]),
            LIMIT,
            **_medians(found),
        )
    ]


def _burst(client: Client, pool: ThreadPoolExecutor, each: int = 4) -> Measure:
    """Every client asks some times, one after another; the measure is the median latency."""

    def ask(_: int) -> list[float]:
        return [client.latency() for _ in range(each)]

    return lambda: statistics.median(second for seconds in pool.map(ask, range(CLIENTS)) for second in seconds)


def _both(ours: Client, stock: Client) -> tuple[tuple[str, Client], tuple[str, Client]]:
    return ("ours", ours), ("stock", stock)


def _medians(found: dict[str, list[float]]) -> dict[str, float]:
    return {f"{name}_median_ms": round(1000 * statistics.median(times), 3) for name, times in found.items()}


def _half(seen: Seen, index: int) -> Seen:
    return lambda share: seen((index + share) / 2)
