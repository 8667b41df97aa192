"""Predictions beside clients that send pictures which take long to decode, in continuous batching."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from devtools.bench.endpoint import EXPLANATIONS, PREDICTIONS, Endpoint, live_server
from devtools.bench.live import window
from devtools.bench.megapixels import photograph
from devtools.bench.results import Result
from devtools.bench.rounds import Progress
from devtools.bench.tails import p95_ms, tail_difference, tail_ratio
from heatserve.imaging import ImageTooLarge, Preprocess, inspect, refuse_dear, shown_ms
from heatserve.serving.settings import Limits
from heatserve_tools.demo.photographs import photographs

CLIENTS = 4
#: The time that a prediction may take longer beside such clients, in bounds of one picture.
ASKED = 1.5
#: The largest ratio of a prediction's p95 beside photographs of `MODERATE` megapixels to that of a quiet server.
AGAINST_QUIET = 3.0
#: Megapixels of an ordinary photograph.
MODERATE = 12.0
#: The largest request that the server takes as it is shipped.
MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class Picture:
    """A picture that the crowd sends.

    body: the bytes of the file.
    ms: the time that its header promises for decoding, resizing and showing it.
    """

    name: str
    body: bytes
    ms: float


def measure(seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """A prediction's p95 alone and beside four clients that ask for Grad-CAMs of large pictures.

    The pictures are the costliest that are allowed, or photographs of twelve megapixels.
    """
    bound = Limits().max_decode_ms
    costliest = max(allowed(), key=lambda picture: picture.ms)
    body = photograph(MODERATE)
    crowds = {"the costliest pictures allowed": costliest, "12-megapixel photographs": Picture("JPEG", body, _ms(body))}
    quiet: list[list[float]] = []
    beside: dict[str, list[list[float]]] = {name: [] for name in crowds}
    answered: dict[str, list[float]] = {name: [] for name in crowds}
    overrides = {"max_request_size": str(MOST_BYTES + 1_000)}
    with live_server(600, overrides) as server:
        endpoint = Endpoint(server, photographs()["chelsea"])
        endpoint.ask(PREDICTIONS)
        endpoint.ask(EXPLANATIONS)
        total, done = rounds * (1 + len(crowds)), 0
        for _ in range(rounds):
            quiet.append(window(endpoint, PREDICTIONS, seconds, []))
            done += 1
            progress(done / total)
            for name, picture in crowds.items():
                crowd = [_asking(endpoint, picture.body, answered[name])] * CLIENTS
                beside[name].append(window(endpoint, PREDICTIONS, seconds, crowd))
                done += 1
                progress(done / total)
    results = []
    for name, picture in crowds.items():
        about: dict[str, Any] = {
            "picture": picture.name,
            "bytes": len(picture.body),
            "promised_ms": round(picture.ms),
            "bound_ms": bound,
            "quiet_p95_ms": p95_ms(quiet),
            "beside_p95_ms": p95_ms(beside[name]),
            "beside_median_ms": round(1000 * statistics.median([*chain(*beside[name])]), 1),
            "their_answers": len(answered[name]),
            "their_median_s": round(statistics.median(answered[name]), 2),
        }
        what = f"a prediction beside {CLIENTS} clients that send {name} (continuous)"
        added = tail_difference(beside[name], quiet, bound / 1000)
        results.append(
            Result.of(f"{what}: p95 less quiet p95, against the bound of one picture", added, ASKED, **about)
        )
        limit = AGAINST_QUIET if picture.body is body else None
        results.append(Result.of(f"{what}: p95 against quiet", tail_ratio(beside[name], quiet), limit))
    return results


def allowed() -> list[Picture]:
    """The largest picture that is allowed, for each format and coding that a client has at hand."""
    found = []
    for name, form, mode, options in _CODINGS:
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


_CODINGS = (
    ("progressive JPEG", "JPEG", "RGB", {"quality": 75, "progressive": True}),
    ("baseline JPEG", "JPEG", "RGB", {"quality": 75}),
    ("PNG with alpha", "PNG", "RGBA", {"compress_level": 1}),
    ("lossless WebP", "WEBP", "RGB", {"lossless": True, "quality": 0, "method": 0}),
    ("lossy WebP", "WEBP", "RGB", {"quality": 60, "method": 0}),
)


def _encoded(megapixels: float, form: str, mode: str, options: Mapping[str, object]) -> bytes:
    """A picture of 3 : 2 in smooth colours. Decoders take as long as for any other, encoders are faster."""
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


def _asking(endpoint: Endpoint, body: bytes, answered: list[float]) -> Callable[[], None]:
    """Asks for a Grad-CAM of the picture. The seconds until an answer are kept, unless the server had no room."""

    def ask() -> None:
        started = time.perf_counter()
        answer = endpoint.post(EXPLANATIONS, {"X-Explain-Method": "gradcam"}, body)
        if answer.status_code != 503:
            answer.raise_for_status()
            answered.append(time.perf_counter() - started)

    return ask
