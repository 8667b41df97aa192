"""The latency of explanations against predictions, by the size of the photograph and the format of the answer.

One client asks one server for both in turns. The stock handler's predictions stand beside them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from devtools.bench import archives, pictures
from devtools.bench.endpoint import EXPLANATIONS, PREDICTIONS, Endpoint
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, ratio
from devtools.bench.servers import same
from devtools.bench.turns import Rounds, medians, summary, take
from heatserve_tools.torchserve.server import Server

#: The largest ratio of a Grad-CAM as JSON to a prediction, by megapixels.
JSON: Mapping[float, float] = {0.1: 1.10, 0.8: 1.20, 2.5: 1.15, 12.0: 1.10}
#: The formats of a picture with the map laid over it, and the largest ratio to a prediction at `OVERLAID` megapixels.
OVERLAYS: Mapping[str, float] = {"PNG": 1.8, "WebP": 1.6, "JPEG": 1.3}
OVERLAID = 2.5
#: Requests in a row before the next contestant's turn.
REQUESTS = 4
STOCK = "stock"

Asks = Mapping[str, Callable[[], object]]


def measure(network: str, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """All sizes and formats of one network, within the same rounds."""
    with both(network) as (ours, stock):
        return results(network, take(asks(ours, stock), REQUESTS, seconds, rounds, progress))


@contextmanager
def both(network: str) -> Iterator[tuple[Endpoint, Endpoint]]:
    """This handler and the stock one with the same weights, whose predictions have been compared."""
    photograph = pictures.jpeg(*pictures.SIZES[OVERLAID])
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch, ExitStack() as stack:
        endpoints = []
        for unpacked in (archives.ours(Path(scratch), network), archives.stock(Path(scratch), network)):
            server = stack.enter_context(Server({archives.NAME: archives.batching(unpacked, 1)}))
            endpoints.append(Endpoint(server, photograph))
        ours, stock = endpoints
        same(*(endpoint.ask(PREDICTIONS).json() for endpoint in (ours, stock)))
        yield ours, stock


def asks(ours: Endpoint, stock: Endpoint) -> Asks:
    """The contestants by name. Those that are compared follow each other."""
    found: dict[str, Callable[[], object]] = {}
    for megapixels, photograph in pictures.sizes().items():
        found[_name("prediction", megapixels)] = partial(ours.ask, PREDICTIONS, {}, photograph)
        found[_name("JSON", megapixels)] = partial(ours.ask, EXPLANATIONS, _GRADCAM, photograph)
        if megapixels == OVERLAID:
            for form in OVERLAYS:
                headers = {**_GRADCAM, "Accept": f"image/{form.lower()}"}
                found[_name(form, megapixels)] = partial(ours.ask, EXPLANATIONS, headers, photograph)
        found[_name(STOCK, megapixels)] = partial(stock.ask, PREDICTIONS, {}, photograph)
    return found


_GRADCAM = {"X-Explain-Method": "gradcam"}


def results(network: str, found: Mapping[str, Rounds]) -> list[Result]:
    """The ratios. found: the latencies of each contestant."""

    def row(what: str, of: str, to: str, megapixels: float, limit: float | None = None) -> Result:
        one, other = found[_name(of, megapixels)], found[_name(to, megapixels)]
        return Result.of(
            f"{what} ({network})",
            ratio(medians(one), medians(other)),
            limit,
            **summary(one, of),
            **summary(other, to),
        )

    prediction = "against a prediction of the same handler"
    rows = [
        row(f"Grad-CAM as JSON, {megapixels:g} megapixels: {prediction}", "JSON", "prediction", megapixels, limit)
        for megapixels, limit in JSON.items()
    ]
    rows += [
        row(f"Grad-CAM as a {form} overlay, {OVERLAID:g} megapixels: {prediction}", form, "prediction", OVERLAID, limit)
        for form, limit in OVERLAYS.items()
    ]
    return rows + [
        row(f"prediction, {megapixels:g} megapixels: against the stock handler", "prediction", STOCK, megapixels)
        for megapixels in JSON
    ]


def _name(what: str, megapixels: float) -> str:
    return f"{what} {megapixels:g}"
