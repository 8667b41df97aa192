"""This handler against the stock `image_classifier`: two real TorchServes with the same weights, asked in turn."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from PIL import Image

from devtools.bench import archives, bursts, ready
from devtools.bench.bursts import Burst
from devtools.bench.contest import Kind, contest
from devtools.bench.crowd import Crowd
from devtools.bench.networks import NETWORKS, SIDE
from devtools.bench.results import Result
from devtools.bench.rounds import Ratio, Seen
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

HEADERS = {"Content-Type": "application/octet-stream"}
PREDICTIONS, EXPLANATIONS = "predictions", "explanations"
#: Each server has the network twice, so that nothing is loaded between measurements.
SINGLE, BATCHED = "single", "batched"
BATCH = 8
#: Milliseconds that a batch waits for who is missing. Longer than clients take to send again: batches are full.
DELAY = 100


class Differs(RuntimeError):
    """The two handlers did not do the same work."""


class Client:
    """One client of one server, with its own connection in each thread."""

    def __init__(self, server: Server, image: bytes, model: str = archives.NAME) -> None:
        self._server, self._image, self._model = server, image, model
        self._local = threading.local()

    def url(self, what: str) -> str:
        """Where predictions or explanations are asked for."""
        return f"{self._server.inference}/{what}/{self._model}"

    def post(self, what: str, options: Mapping[str, str] | None = None) -> requests.Response:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        headers = {**HEADERS, **(options or {})}
        response: requests.Response = self._local.session.post(
            self.url(what), data=self._image, headers=headers, timeout=600
        )
        response.raise_for_status()
        return response

    def latency(self) -> float:
        """The seconds of one prediction."""
        started = time.perf_counter()
        self.post(PREDICTIONS)
        return time.perf_counter() - started


@dataclass(frozen=True)
class Bench:
    """What the measurements of one network share. seconds, rounds: at least so much for each group of contestants."""

    network: str
    ours: Server
    stock: Server
    crowd: Crowd
    seconds: float
    rounds: int


def measure(seconds: float, seen: Seen, rounds: int = 8, networks: Sequence[str] = tuple(NETWORKS)) -> list[Result]:
    """All that is measured through servers, of each network: three groups of contestants, the starts, the sizes.

    seconds: of a group on average. rounds: of a group, at least; workers are started half as often.
    """
    parts: tuple[Callable[[Bench, Seen], list[Result]], ...]
    parts = (_alone, _explanations, _together, _ready, _sizes)
    results: list[Result] = []
    for index, network in enumerate(networks):
        with _bench(network, seconds, rounds) as bench:
            for number, part in enumerate(parts, index * len(parts)):
                results += part(bench, lambda share, n=number: seen((n + share) / (len(parts) * len(networks))))
    return results


@contextmanager
def _bench(network: str, seconds: float, rounds: int) -> Iterator[Bench]:
    """Both servers with the network, once it is sure that they predict the same."""
    image = photographs()["chelsea"]
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch, ExitStack() as stack:
        ours, stock = (
            stack.enter_context(
                Server({SINGLE: archives.batching(archive, 1), BATCHED: archives.batching(archive, BATCH, DELAY)})
            )
            for archive in (archives.ours(Path(scratch), network), archives.stock(Path(scratch), network))
        )
        for model in (SINGLE, BATCHED):
            same(*(Client(server, image, model).post(PREDICTIONS).json() for server in (ours, stock)))
        yield Bench(network, ours, stock, stack.enter_context(Crowd(image)), seconds, rounds)


def same(ours: dict[str, float], stock: dict[str, float], tolerance: float = 1e-5) -> None:
    """Raises Differs unless the probabilities are equal; classes that are equally probable may change places."""
    last = min(ours.values(), default=0.0)
    ranks = all(abs(one - other) <= tolerance for one, other in zip(ours.values(), stock.values()))
    labels = all(abs(ours.get(label, last) - stock[label]) <= tolerance for label in stock)
    if len(ours) != len(stock) or not ranks or not labels:
        raise Differs(f"the predictions differ, so their latencies say nothing: {ours} and {stock}")


def _alone(bench: Bench, seen: Seen) -> list[Result]:
    """One client, batches of one."""
    kinds = {
        "ours": Kind(bench.ours, SINGLE, PREDICTIONS, 1, 8),
        "stock": Kind(bench.stock, SINGLE, PREDICTIONS, 1, 8),
        "gradcam": Kind(bench.ours, SINGLE, EXPLANATIONS, 1, 8),
    }
    found = contest(bench.crowd, kinds, 0.75 * bench.seconds, bench.rounds, seen)
    about = f"{bench.network}, 1 client, batchSize 1"
    return [
        _row(f"prediction: latency {_STOCK} ({about})", bursts.latency, found, "ours", "stock", 0.90),
        _row(f"prediction: processor time {_STOCK} ({about})", bursts.processor, found, "ours", "stock"),
        _row(f"Grad-CAM: latency {_PREDICTION} ({about})", bursts.latency, found, "gradcam", "ours", 1.25),
    ]


def _explanations(bench: Bench, seen: Seen) -> list[Result]:
    """Two clients: the next request is there when one is answered. The stock handler explains a batch's first alone."""
    kinds = {
        "ours": Kind(bench.ours, SINGLE, EXPLANATIONS, 2, 8),
        "stock": Kind(bench.stock, SINGLE, EXPLANATIONS, 2, 2),
    }
    found = contest(bench.crowd, kinds, 0.75 * bench.seconds, bench.rounds, seen)
    about = f"{bench.network}, 2 clients, batchSize 1"
    return [
        _row(f"explanations a second: Grad-CAM {_STOCK}'s ({about})", bursts.rate, found, "ours", "stock", least=15),
        _row(f"explanation: processor time {_STOCK}'s ({about})", bursts.processor, found, "ours", "stock"),
    ]


def _together(bench: Bench, seen: Seen) -> list[Result]:
    """Many clients, full batches."""
    kinds = {
        "ours": Kind(bench.ours, BATCHED, PREDICTIONS, BATCH, 2 * BATCH),
        "stock": Kind(bench.stock, BATCHED, PREDICTIONS, BATCH, 2 * BATCH),
        "prediction": Kind(bench.ours, BATCHED, PREDICTIONS, 2 * BATCH, 4 * BATCH),
        "gradcam": Kind(bench.ours, BATCHED, EXPLANATIONS, 2 * BATCH, 4 * BATCH),
    }
    found = contest(bench.crowd, kinds, 1.5 * bench.seconds, bench.rounds, seen)
    about, more = (f"{bench.network}, {clients} clients, batchSize {BATCH}" for clients in (BATCH, 2 * BATCH))
    return [
        _row(f"prediction: latency {_STOCK} ({about})", bursts.latency, found, "ours", "stock", 0.85),
        _row(f"predictions a second: {_STOCK} ({about})", bursts.rate, found, "ours", "stock"),
        _row(f"prediction: processor time {_STOCK} ({about})", bursts.processor, found, "ours", "stock"),
        _row(f"Grad-CAM: latency {_PREDICTION} ({more})", bursts.latency, found, "gradcam", "prediction", 1.25),
    ]


_STOCK = "against the stock handler"
_PREDICTION = "against a prediction of the same handler"


def _row(
    what: str,
    compare: Callable[[list[Burst], list[Burst]], Ratio],
    found: Mapping[str, list[Burst]],
    of: str,
    to: str,
    limit: float | None = None,
    least: float | None = None,
) -> Result:
    details = {**bursts.summary(found[of], of), **bursts.summary(found[to], to)}
    return Result.of(what, compare(found[of], found[to]), limit, least, **details)


def _ready(bench: Bench, seen: Seen) -> list[Result]:
    return ready.measure(bench.ours, bench.stock, SINGLE, bench.network, max(2, bench.rounds // 2), seen)


def _sizes(bench: Bench, seen: Seen) -> list[Result]:
    """The bytes of one explanation of a photograph of the network's own size."""
    picture = io.BytesIO()
    Image.open(io.BytesIO(photographs()["chelsea"])).resize((SIDE, SIDE)).save(picture, "PNG")
    ours, stock = (
        len(Client(server, picture.getvalue(), SINGLE).post(EXPLANATIONS).content)
        for server in (bench.ours, bench.stock)
    )
    seen(1.0)
    what = f"explanation of a {SIDE} × {SIDE} image, as JSON: size {_STOCK}'s ({bench.network})"
    return [Result(what, ours / stock, limit=1 / 40, detail={"ours_bytes": ours, "stock_bytes": stock})]
