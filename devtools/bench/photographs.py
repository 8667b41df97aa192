"""Predictions beside clients that send pictures which take long to decode, in continuous batching."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from devtools.bench import archives, live
from devtools.bench.megapixels import photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Ratio, Seen
from devtools.bench.servers import HEADERS, Client
from heatserve.imaging import ImageTooLarge, Preprocess, inspect, refuse_dear, shown_ms
from heatserve.serving.settings import Limits
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.packaging.packager import CONTINUOUS
from heatserve_tools.torchserve.server import Server

CLIENTS = 4
#: How much longer a prediction may take beside such clients, in the bound of one picture.
ASKED = 1.5
MODERATE = 12.0
#: Of a request to the server as it is shipped.
MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class Picture:
    """body: the file. ms: what its header promises for decoding, resizing and showing it."""

    name: str
    body: bytes
    ms: float


def measure(seconds: float, rounds: int, seen: Seen) -> list[Result]:
    """A prediction's p95 alone and beside four clients, who ask for Grad-CAMs: of the costliest pictures that are
    allowed, and of photographs of twelve megapixels."""
    bound = Limits().max_decode_ms
    costliest = max(allowed(), key=lambda picture: picture.ms)
    body = photograph(MODERATE)
    crowds = {"the costliest pictures allowed": costliest, "12-megapixel photographs": Picture("JPEG", body, _ms(body))}
    quiet: list[list[float]] = []
    beside: dict[str, list[list[float]]] = {name: [] for name in crowds}
    answered: dict[str, list[float]] = {name: [] for name in crowds}
    with _server() as client:
        total, done = rounds * (1 + len(crowds)), 0
        for _ in range(rounds):
            quiet.append(live.window(client, "predictions", seconds, 0, lambda: None))
            done += 1
            seen(done / total)
            for name, picture in crowds.items():
                ask = _asking(client, picture.body, answered[name])
                beside[name].append(live.window(client, "predictions", seconds, CLIENTS, ask))
                done += 1
                seen(done / total)
    results = []
    for name, picture in crowds.items():
        about = {
            "picture": picture.name,
            "bytes": len(picture.body),
            "promised_ms": round(picture.ms),
            "bound_ms": bound,
            "quiet_p95_ms": _p95(quiet),
            "beside_p95_ms": _p95(beside[name]),
            "beside_median_ms": round(1000 * statistics.median([*chain(*beside[name])]), 1),
            "their_answers": len(answered[name]),
            "their_median_s": round(statistics.median(answered[name]), 2),
        }
        what = f"a prediction beside {CLIENTS} clients that send {name} (continuous)"
        added = _added(beside[name], quiet, bound / 1000)
        results.append(
            Result.of(f"{what}: p95 less quiet p95, against the bound of one picture", added, ASKED, **about)
        )
        results.append(Result.of(f"{what}: p95 against quiet", live.tail_ratio(beside[name], quiet)))
    return results


def allowed() -> list[Picture]:
    """Pictures at the edge of what is allowed, of each format and way of coding that a client has at hand."""
    found = []
    for name, form, mode, options in _KINDS:
        for megapixels in (50, 36, 24, 18, 12, 8):
            body = _encoded(megapixels, form, mode, options)
            try:
                ms = _ms(body)
                refuse_dear(ms, len(body), Limits().max_decode_ms)
            except ImageTooLarge:
                continue
            if len(body) <= MOST_BYTES:
                found.append(Picture(f"{name}, {megapixels} MP", body, ms))
                break
    return found


_KINDS = (
    ("progressive JPEG", "JPEG", "RGB", {"quality": 75, "progressive": True}),
    ("baseline JPEG", "JPEG", "RGB", {"quality": 75}),
    ("PNG with alpha", "PNG", "RGBA", {"compress_level": 1}),
    ("lossless WebP", "WEBP", "RGB", {"lossless": True, "quality": 0, "method": 0}),
    ("lossy WebP", "WEBP", "RGB", {"quality": 60, "method": 0}),
)


def _encoded(megapixels: float, form: str, mode: str, options: dict[str, object]) -> bytes:
    """A picture of 3 : 2 in smooth colours, which decoders take as long for as for any other and encoders not."""
    width = round((1.5e6 * megapixels) ** 0.5)
    coarse = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, round(width / 1.5)), Image.Resampling.BILINEAR).convert(mode)
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _ms(body: bytes) -> float:
    limits = Limits()
    header = inspect(body, limits.max_pixels)
    view = Preprocess().cost_ms(header.width, header.height)
    return header.decode_ms + view + shown_ms(header.width, header.height, limits.max_side)


def _asking(client: Client, body: bytes, answered: list[float]) -> Callable[[], None]:
    session = requests.Session()

    def ask() -> None:
        started = time.perf_counter()
        headers = {**HEADERS, "X-Explain-Method": "gradcam"}
        answer = session.post(client.url("explanations"), data=body, headers=headers, timeout=600)
        if answer.status_code != 503:
            answer.raise_for_status()
            answered.append(time.perf_counter() - started)

    return ask


@contextmanager
def _server() -> Iterator[Client]:
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        unpacked = archives.configured(archives.ours(Path(scratch)), "live", {**CONTINUOUS, "responseTimeout": 600})
        with Server({archives.NAME: unpacked}, {"max_request_size": str(MOST_BYTES + 1_000)}) as server:
            client = Client(server, photographs()["chelsea"])
            for what in ("predictions", "explanations"):
                client.post(what)
            yield client


def _added(beside: list[list[float]], quiet: list[list[float]], bound: float, resamples: int = 4000) -> Ratio:
    """(p95 beside - p95 quiet) / bound; the interval by bootstrap over the single latencies (Efron 1979)."""
    generator = np.random.default_rng(0)

    def tails(windows: list[list[float]]) -> np.ndarray:
        values = np.asarray([*chain(*windows)])
        return np.percentile(generator.choice(values, size=(resamples, len(values))), 95, axis=1)

    low, high = np.percentile((tails(beside) - tails(quiet)) / bound, [2.5, 97.5])
    value = (_tail(beside) - _tail(quiet)) / bound
    return Ratio(value, float(low), float(high), len(beside))


def _tail(windows: Sequence[Sequence[float]]) -> float:
    return float(np.percentile([*chain(*windows)], 95))


def _p95(windows: Sequence[Sequence[float]]) -> float:
    return round(1000 * _tail(windows), 1)
