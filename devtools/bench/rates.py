"""Rows a second of eight clients that send photographs, half of them for explanations, in both modes of TorchServe.

The same rows can be sent to the handler of another checkout, in turns.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from devtools.bench import archives, checkouts, pictures
from devtools.bench.crowd import Crowd
from devtools.bench.endpoint import EXPLANATIONS, PREDICTIONS, Endpoint
from devtools.bench.live import MODES, ROOM
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, interleave, ratio
from heatserve_tools.torchserve.server import Server

CLIENTS = 8
MEGAPIXELS = 2.5
#: Rows of each client in a burst; every second one is an explanation.
EACH = 4
#: The smallest ratio of rows a second to those of the other checkout.
ASKED = 1.5
#: This checkout, and the other one.
NEW, OLD = "new", "old"

#: By the checkout and the mode.
Endpoints = Mapping[tuple[str, str], Endpoint]


def measure(network: str, against: Path | None, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """Bursts of both modes and both checkouts in turns. against: the other checkout."""
    with served(network, against) as endpoints:
        found = bursts(endpoints, seconds, rounds, progress)
    return results(network, found, None if against is None else checkouts.commit(against))


@contextmanager
def served(network: str, against: Path | None) -> Iterator[Endpoints]:
    """A server for each mode of each checkout, idle unless asked."""
    photograph = pictures.jpeg(*pictures.SIZES[MEGAPIXELS])
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch, ExitStack() as stack:
        unpacked = {NEW: archives.ours(Path(scratch), network)}
        if against is not None:
            unpacked[OLD] = checkouts.ours(against, Path(scratch) / OLD, network)
        endpoints = {}
        for checkout, archive in unpacked.items():
            for mode, settings in MODES.items():
                configured = archives.configured(archive, mode, {**settings, **ROOM, "responseTimeout": 600})
                server = stack.enter_context(Server({archives.NAME: configured}))
                endpoint = endpoints[checkout, mode] = Endpoint(server, photograph)
                endpoint.ask(PREDICTIONS)
                endpoint.ask(EXPLANATIONS)
        yield endpoints


def bursts(endpoints: Endpoints, seconds: float, rounds: int, progress: Progress) -> dict[tuple[str, str], list[float]]:
    """The seconds of each burst."""
    with ExitStack() as stack:
        contestants: dict[str, Callable[[], float]] = {}
        names = {f"{checkout} {mode}": (checkout, mode) for checkout, mode in endpoints}
        for name, key in names.items():
            crowd = stack.enter_context(Crowd(clients(endpoints[key])))
            contestants[name] = lambda crowd=crowd: crowd.burst(EACH).seconds
        found = interleave(contestants, seconds, warm_up=1, least=rounds, progress=progress)
    return {names[name]: values for name, values in found.items()}


def clients(endpoint: Endpoint) -> list[Callable[[], object]]:
    """A function for each client. It asks for a prediction and a Grad-CAM as JSON by turns.

    Half of the clients start with the explanation.
    """
    return [_Alternating(endpoint, number % 2) for number in range(CLIENTS)]


class _Alternating:
    def __init__(self, endpoint: Endpoint, first: int) -> None:
        self._asks = [partial(endpoint.ask, api) for api in (PREDICTIONS, EXPLANATIONS)]
        self._next = first

    def __call__(self) -> None:
        ask, self._next = self._asks[self._next], 1 - self._next
        ask()


def results(network: str, found: Mapping[tuple[str, str], list[float]], commit: str | None) -> list[Result]:
    """The rates, and their ratios to the other checkout's. commit: the other checkout's, None where there is none."""
    rows = CLIENTS * EACH
    what = f"rows a second, {CLIENTS} clients with {MEGAPIXELS:g}-megapixel photographs, half of them explanations"
    lines = []
    for mode in MODES:
        rates = {checkout: rows / statistics.median(found[checkout, mode]) for checkout, m in found if m == mode}
        lines.append(Result(f"{what}, {mode} ({network})", rates[NEW], "a second"))
        if commit is not None:
            times = ratio(found[OLD, mode], found[NEW, mode])
            about = {f"{name}_per_second": round(rate, 2) for name, rate in rates.items()}
            lines.append(Result.of(f"{what}, {mode} ({network}), against commit {commit}", times, least=ASKED, **about))
    return lines
