"""An archive's service in this process, without a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from heatserve.serving import settings, start
from heatserve.serving.answers import Answer
from heatserve.serving.service import Row, Service


@contextmanager
def serving(archive: Path) -> Iterator[Service]:
    """The service of an unpacked archive with default settings, on the CPU."""
    manifest = json.loads((archive / "MAR-INF" / "MANIFEST.json").read_text())
    sys.path.insert(0, str(archive))
    try:
        yield start.service(archive, manifest, settings.read_settings({}, {}), torch.device("cpu"))
    finally:
        sys.path.remove(str(archive))


def asking(picture: bytes, options: Mapping[str, str]) -> Row:
    """A request for an explanation of a picture."""
    named = {f"X-Explain-{name}": value for name, value in options.items()}
    return Row("one", {"body": picture}, {"Content-Length": "1", "explain": "True", **named})


def answer(service: Service, picture: bytes, options: Mapping[str, str]) -> Answer:
    """The answer to a request for an explanation of a picture."""
    row = asking(picture, options)
    while (reply := service.call([row])).left:
        pass
    return reply.answers[row.id]
