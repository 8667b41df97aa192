"""This handler against the stock `image_classifier`: two real TorchServes with the same weights, asked in turn."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from devtools.bench import archives, bursts, ready
from devtools.bench.bursts import Burst
from devtools.bench.contest import Load, contest
from devtools.bench.crowd import Locust
from devtools.bench.endpoint import EXPLANATIONS, PREDICTIONS, Endpoint
from devtools.bench.networks import NETWORKS, SIDE
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, Ratio
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

#: Each server has the network twice, so that nothing is loaded between measurements.
SINGLE, BATCHED = "single", "batched"
BATCH = 8
#: The limits of a prediction's latency against the stock handler's, by the batch's size.
AGAINST_STOCK = {1: 0.80, BATCH: 0.72}
#: Milliseconds that a batch waits until it is full. Clients send their next request sooner, so batches are full.
DELAY = 100


class Differs(RuntimeError):
    """The two handlers did not do the same work."""


@dataclass(frozen=True)
class Pair:
    """Both handlers' servers with one network, and the clients that ask them.

    seconds, rounds: at least so much for each group of contestants.
    """

    network: str
    ours: Server
    stock: Server
    locust: Locust
    seconds: float
    rounds: int


def measure(
    seconds: float, progress: Progress, rounds: int = 8, networks: Sequence[str] = tuple(NETWORKS)
) -> list[Result]:
    """Three groups of contestants, the starts and the sizes, of each network.

    seconds: of a group on average.
    rounds: of a group, at least; workers are started half as often.
    """
    parts: tuple[Callable[[Pair, Progress], list[Result]], ...]
    parts = (_alone, _explanations, _together, _ready, _sizes)
    results: list[Result] = []
    for index, network in enumerate(networks):
        with _pair(network, seconds, rounds) as pair:
            for number, part in enumerate(parts, index * len(parts)):
                results += part(pair, lambda share, n=number: progress((n + share) / (len(parts) * len(networks))))
    return results


@contextmanager
def _pair(network: str, seconds: float, rounds: int) -> Iterator[Pair]:
    """Both servers with the network; their predictions have been compared."""
    image = photographs()["chelsea"]
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch, ExitStack() as stack:
        ours, stock = (
            stack.enter_context(
                Server({SINGLE: archives.batching(archive, 1), BATCHED: archives.batching(archive, BATCH, DELAY)})
            )
            for archive in (archives.ours(Path(scratch), network), archives.stock(Path(scratch), network))
        )
        for model in (SINGLE, BATCHED):
            same(*(Endpoint(server, image, model).ask(PREDICTIONS).json() for server in (ours, stock)))
        yield Pair(network, ours, stock, stack.enter_context(Locust(image)), seconds, rounds)


def same(ours: dict[str, float], stock: dict[str, float], tolerance: float = 1e-5) -> None:
    """Raises Differs unless the probabilities are equal; classes that are equally probable may change places."""
    last = min(ours.values(), default=0.0)
    ranks = all(abs(one - other) <= tolerance for one, other in zip(ours.values(), stock.values()))
    labels = all(abs(ours.get(label, last) - stock[label]) <= tolerance for label in stock)
    if len(ours) != len(stock) or not ranks or not labels:
        raise Differs(f"the predictions differ, so their latencies say nothing: {ours} and {stock}")


def _alone(pair: Pair, progress: Progress) -> list[Result]:
    """One client, batches of one."""
    loads = {
        "ours": Load(pair.ours, SINGLE, PREDICTIONS, 1, 8),
        "stock": Load(pair.stock, SINGLE, PREDICTIONS, 1, 8),
        "gradcam": Load(pair.ours, SINGLE, EXPLANATIONS, 1, 8),
    }
    found = contest(pair.locust, loads, 0.75 * pair.seconds, pair.rounds, progress)
    about = f"{pair.network}, 1 client, batchSize 1"
    return [
        _row(f"prediction: latency {_STOCK} ({about})", bursts.latency, found, "ours", "stock", AGAINST_STOCK[1]),
        _row(f"prediction: processor time {_STOCK} ({about})", bursts.processor, found, "ours", "stock"),
        _row(f"Grad-CAM: latency {_PREDICTION} ({about})", bursts.latency, found, "gradcam", "ours", 1.25),
    ]


def _explanations(pair: Pair, progress: Progress) -> list[Result]:
    """Two clients, so that a request waits when one is answered. The stock handler explains one row of a batch."""
    loads = {
        "ours": Load(pair.ours, SINGLE, EXPLANATIONS, 2, 8),
        "stock": Load(pair.stock, SINGLE, EXPLANATIONS, 2, 2),
    }
    found = contest(pair.locust, loads, 0.75 * pair.seconds, pair.rounds, progress)
    about = f"{pair.network}, 2 clients, batchSize 1"
    return [
        _row(f"explanations a second: Grad-CAM {_STOCK}'s ({about})", bursts.rate, found, "ours", "stock", least=15),
        _row(f"explanation: processor time {_STOCK}'s ({about})", bursts.processor, found, "ours", "stock"),
    ]


def _together(pair: Pair, progress: Progress) -> list[Result]:
    """Many clients, full batches."""
    loads = {
        "ours": Load(pair.ours, BATCHED, PREDICTIONS, BATCH, 2 * BATCH),
        "stock": Load(pair.stock, BATCHED, PREDICTIONS, BATCH, 2 * BATCH),
        "prediction": Load(pair.ours, BATCHED, PREDICTIONS, 2 * BATCH, 4 * BATCH),
        "gradcam": Load(pair.ours, BATCHED, EXPLANATIONS, 2 * BATCH, 4 * BATCH),
    }
    found = contest(pair.locust, loads, 1.5 * pair.seconds, pair.rounds, progress)
    about, more = (f"{pair.network}, {clients} clients, batchSize {BATCH}" for clients in (BATCH, 2 * BATCH))
    return [
        _row(f"prediction: latency {_STOCK} ({about})", bursts.latency, found, "ours", "stock", AGAINST_STOCK[BATCH]),
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


def _ready(pair: Pair, progress: Progress) -> list[Result]:
    return ready.measure(pair.ours, pair.stock, SINGLE, pair.network, max(2, pair.rounds // 2), progress)


def _sizes(pair: Pair, progress: Progress) -> list[Result]:
    """The bytes of one explanation of a photograph of the network's own size."""
    picture = io.BytesIO()
    Image.open(io.BytesIO(photographs()["chelsea"])).resize((SIDE, SIDE)).save(picture, "PNG")
    ours, stock = (
        len(Endpoint(server, picture.getvalue(), SINGLE).ask(EXPLANATIONS).content)
        for server in (pair.ours, pair.stock)
    )
    progress(1.0)
    what = f"explanation of a {SIDE} × {SIDE} image, as JSON: size {_STOCK}'s ({pair.network})"
    return [Result(what, ours / stock, limit=1 / 40, detail={"ours_bytes": ours, "stock_bytes": stock})]
