"""The handler's work around the model, against the size of the photograph that is sent."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from devtools.bench import archives, in_process
from devtools.bench.library import FORWARD
from devtools.bench.results import Result
from devtools.bench.rounds import Measure, Progress, interleave
from devtools.bench.series import Line, Series
from heatserve.serving.service import Service

MEGAPIXELS = (0.1, 0.5, 2.0, 8.0, 24.0)


def over_megapixels(
    seconds: float, rounds: int, progress: Progress, megapixels: Sequence[float] = MEGAPIXELS
) -> list[Result]:
    """Reading a JPEG and writing the answer of its Grad-CAM, against a plain forward pass of the same service."""
    with (
        tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch,
        in_process.serving(archives.ours(Path(scratch))) as service,
    ):
        return of_service(service, seconds, rounds, progress, megapixels)


def of_service(
    service: Service, seconds: float, rounds: int, progress: Progress, megapixels: Sequence[float]
) -> list[Result]:
    """The same with a given service."""
    pictures = {size: photograph(size) for size in megapixels}
    errands = {size: Errand(service, picture) for size, picture in pictures.items()}
    contestants: dict[str, Measure] = {FORWARD: partial(_forward, service)}
    for size, errand in errands.items():
        # In this order: the photograph that was read is answered.
        contestants |= {f"read {size}": errand.read, f"write {size}": errand.write}
    found = interleave(contestants, seconds, warm_up=1, least=rounds, progress=progress)

    def line(name: str, stage: str) -> Line:
        return Line.of(name, megapixels, found, [f"{stage} {size}" for size in megapixels], FORWARD)

    read, write = line("decode and preprocess", "read"), line("render and encode", "write")
    both = line("both", "read") + write
    shown = Series(
        "Decoding and answering against the photograph's size (Grad-CAM as JSON)",
        "megapixels of the photograph",
        "cost in forward passes (lite0, one image)",
        (both, read, write),
    )
    first, last = both.at[0].median, both.at[-1].median
    sentence = (
        f"The handler's work around the model grows with the photograph as MP^{both.exponent.median:.2f}: "
        f"{first:.2f} forward passes at {megapixels[0]:g} megapixels and {last:.2f} at {megapixels[-1]:g}, "
        f"{both.marginal.median:.2f} for each further megapixel."
    )
    what = "around the model: a further megapixel of a JPEG, against a plain forward pass (lite0)"
    sizes = {f"{size:g} MP": round(len(picture) / 1000) for size, picture in pictures.items()}
    return [Result.of(what, both.marginal, **shown.detail(sentence, jpeg_kb=sizes))]


class Errand:
    """One photograph's explanation, without a server. Its reading and its answer are timed, the model is not."""

    def __init__(self, service: Service, picture: bytes) -> None:
        self._service, self._picture = service, picture

    def read(self) -> float:
        """Seconds from the bytes to the tensor."""
        row = in_process.asking(self._picture, {"method": "gradcam"})
        started = time.perf_counter()
        self._service.loop.admit(row)
        return time.perf_counter() - started

    def write(self) -> float:
        """Seconds from the map of the photograph to the bytes of its answer."""
        while self._service.loop.busy:
            self._service.loop.step()
        row = self._service.loop.take("one")
        started = time.perf_counter()
        answer = self._service.responder.respond(row.protocol, [item.settled() for item in row.items]).answer
        elapsed = time.perf_counter() - started
        if answer.status != 200:
            raise RuntimeError(f"a photograph was refused: {answer.status} {answer.body!r}")
        return elapsed


def photograph(megapixels: float) -> bytes:
    """A JPEG of 3 : 2 with detail of all sizes, about as many bytes a pixel as a camera's. Repeatable."""
    width = round((1.5e6 * megapixels) ** 0.5)
    size = (width, round(width / 1.5))
    picture = Image.new("RGB", size, (128, 128, 128))
    generator = np.random.default_rng(0)
    for detail, share in ((4, 0.8), (24, 0.5), (160, 0.35), (max(size) // 3, 0.25)):
        coarse = generator.integers(0, 256, (max(2, detail * 2 // 3), detail, 3), np.uint8)
        picture = Image.blend(picture, Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), share)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _forward(service: Service) -> float:
    """Seconds of the service's own model, for one image and without an explanation."""
    explainer = service.explainer
    side = service.settings.preprocess.crop
    assert isinstance(side, int)
    image = torch.zeros((1, 3, side, side), device=explainer.device)
    started = time.perf_counter()
    explainer.run(image, [[]])
    return time.perf_counter() - started
