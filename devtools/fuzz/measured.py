"""The cost of a picture on the product's own path, measured in a child process that may be killed."""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import random
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from devtools.fuzz.costly import KINDS
from devtools.fuzz.dials import MAX_BYTES, MAX_PIXELS, Dials
from heatserve.imaging import (
    MAX_DECODE_MS,
    ImageTooLarge,
    Preprocess,
    UnreadableImage,
    decode,
    inspect,
    refuse_dear,
    shown_ms,
)
from heatserve.serving.settings import Limits

#: Seconds and bytes that one picture may take before its child process is ended.
TIMEOUT = 60.0
MEMORY = 8 << 30
#: CPU seconds for `plain_jpeg` on the machine that the table of costs is stated for.
REFERENCE = 0.030
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Candidate:
    """A kind of picture and its dials; the seed draws those that are not set."""

    kind: str
    dials: dict[str, float]
    seed: int


@dataclass(frozen=True)
class Found:
    """The cost of a candidate.

    dials: all of its dials, those that were drawn included.
    image: its format, coding, mode and size.
    sent: the bytes of its file.
    seconds: of CPU time on the machine that the bounds are stated for; the plain JPEG is decoded beside it.
    promised: the nominal seconds by its header, 0 where that was not read.
    peak: the bytes of memory beyond those of the process before.
    verdict: "accepted", or the reason against it.
    """

    candidate: Candidate
    dials: dict[str, float] = field(default_factory=dict)
    image: str = ""
    sent: int = 0
    seconds: float = 0.0
    promised: float = 0.0
    peak: int = 0
    verdict: str = ""


class Child:
    """A process that makes and measures pictures, one at a time. A context manager, which ends it."""

    def __init__(self) -> None:
        self._start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def measure(self, candidate: Candidate) -> Found:
        """The cost of a candidate. One that ends the child costs the whole time limit, unless it could not be made."""
        seconds, verdict = 0.0, "not made: no end"
        try:
            self._connection.send(candidate)
            while self._connection.poll(3 * TIMEOUT if seconds else TIMEOUT):
                found: Found | None = self._connection.recv()
                if found is not None:
                    return found
                seconds, verdict = TIMEOUT, "no end"  # the file is made, and being taken
        except (EOFError, OSError):
            seconds, verdict = TIMEOUT, "the process died"
        self.__exit__()
        self._start()
        return Found(candidate, candidate.dials, seconds=seconds, verdict=verdict)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()


def _serve(connection: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C write to it
    torch.set_num_threads(1)
    Image.init()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sample = plain_jpeg()
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            connection.send(_measured(connection.recv(), sample, lambda: connection.send(None)))


def _measured(candidate: Candidate, sample: bytes, made: Callable[[], None]) -> Found:
    """The cost of a candidate. made: is called once its file is there."""
    dials = Dials(dict(candidate.dials), random.Random(candidate.seed))
    try:
        data = KINDS[candidate.kind](dials)
    except Exception as error:  # not every combination can be written
        return Found(candidate, dials.set, verdict=f"not made: {error}"[:60])
    if len(data) > MAX_BYTES:
        return Found(candidate, dials.set, sent=len(data), verdict="too many bytes")
    made()
    _reset_peak()
    before = _peak()
    started = time.process_time()
    promised, image, verdict = taken(data)
    seconds = time.process_time() - started
    peak = max(0, _peak() - before)
    if seconds > 0.05:  # beside others that use the processor, it is slower now than at other times
        seconds /= slowness(sample)
    return Found(candidate, dials.set, image, len(data), seconds, promised, peak, verdict)


def taken(data: bytes) -> tuple[float, str, str]:
    """Takes a picture through the server's own steps, to the model's view and the copy that is shown.

    Gives the nominal seconds by its header, its format and size, and the verdict.
    """
    limits, preprocess = Limits(), Preprocess()
    promised, image = 0.0, ""
    try:
        header = inspect(data, MAX_PIXELS)
        image = f"{header.form} {header.coding} {header.mode} {header.width} x {header.height}"
        work = header.decode_ms + preprocess.cost_ms(header.width, header.height)
        work += shown_ms(header.width, header.height, limits.max_side)
        promised = work / 1000
        preprocess.check(header.width, header.height, limits.max_resized_pixels)
        refuse_dear(work, len(data), MAX_DECODE_MS)
        picture = decode(data, MAX_PIXELS)
        preprocess.tensor(picture, limits.max_resized_pixels)
        picture.upright(limits.max_side)
    except (UnreadableImage, ImageTooLarge) as error:
        return promised, image, str(error)
    return promised, image, "accepted"


def plain_jpeg() -> bytes:
    """A baseline JPEG of 12 megapixels."""
    tile = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(tile).resize((4_000, 3_000), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


def slowness(sample: bytes) -> float:
    """The time for the plain JPEG on this machine now, divided by that on the machine of the bounds."""
    found = []
    for _ in range(2):
        started = time.process_time()
        Image.open(io.BytesIO(sample)).load()
        found.append(time.process_time() - started)
    return min(found) / REFERENCE


def _reset_peak() -> None:
    with suppress(OSError, AttributeError):  # or memory left over from making the picture hides the decoder's
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        _RESET.write_text("5")


def _peak() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
