"""An archive's service in this process, without a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from heatserve.serving import settings, start


@contextmanager
def serving(archive: Path) -> Iterator[start.Service]:
    """The service of an unpacked archive with default settings, on the CPU."""
    manifest = json.loads((archive / "MAR-INF" / "MANIFEST.json").read_text())
    sys.path.insert(0, str(archive))
    try:
        yield start.service(archive, manifest, settings.read_settings({}, {}), torch.device("cpu"))
    finally:
        sys.path.remove(str(archive))


def headers(options: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request for an explanation."""
    return {"Content-Length": "1", "explain": "True", **{f"X-Explain-{name}": value for name, value in options.items()}}


def answer(service: start.Service, picture: bytes, options: Mapping[str, str]) -> Any:
    """The answer to one request for an explanation."""
    service.loop.admit("one", {"body": picture}, headers(options))
    while service.loop.busy:
        service.loop.step()
    return service.writer.write(service.loop.take("one"))
