"""A model of a real TorchServe as the benchmarks ask it: the address, and an image that is sent again and again."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from devtools.bench import archives
from heatserve_tools.packaging.configuration import CONTINUOUS
from heatserve_tools.torchserve.server import Server

HEADERS = {"Content-Type": "application/octet-stream"}
PREDICTIONS, EXPLANATIONS = "predictions", "explanations"
SMOOTHGRAD = {"X-Explain-Method": "smoothgrad"}


class Endpoint:
    """One model of one server, and the image that is sent to it. Each thread keeps a connection of its own."""

    def __init__(self, server: Server, image: bytes, model: str = archives.NAME) -> None:
        self._server, self._image, self._model = server, image, model
        self._local = threading.local()

    def post(self, api: str, options: Mapping[str, str] | None = None, image: bytes | None = None) -> requests.Response:
        """The answer of `predictions` or `explanations` to the image, or to another one; its status is not judged."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        response: requests.Response = self._local.session.post(
            f"{self._server.inference}/{api}/{self._model}",
            data=image or self._image,
            headers={**HEADERS, **(options or {})},
            timeout=600,
        )
        return response

    def ask(self, api: str, options: Mapping[str, str] | None = None, image: bytes | None = None) -> requests.Response:
        """A good answer to the image, or to another one. Raises requests.HTTPError for any other answer."""
        response = self.post(api, options, image)
        response.raise_for_status()
        return response


@contextmanager
def live_server(response_timeout: int = 120, overrides: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server with lite0 in continuous batching.

    response_timeout: in seconds.
    overrides: settings of the server that are not the shipped ones.
    """
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        settings = {**CONTINUOUS, "responseTimeout": response_timeout}
        archive = archives.configured(archives.ours(Path(scratch)), "live", settings)
        with Server({archives.NAME: archive}, overrides) as server:
            yield server
