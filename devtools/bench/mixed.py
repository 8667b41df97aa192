"""Requests of all kinds, good and bad, as clients send them in continuous batching, and a judge of their answers."""

from __future__ import annotations

import io
import json
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import requests

from devtools.agreement import KINK, distance
from devtools.bench import archives
from devtools.bench.endpoint import HEADERS
from heatserve_tools.torchserve.server import Server

SMOOTH = {"X-Explain-Method": "smoothgrad", "X-Explain-Samples": "8"}
TIMEOUT = 300


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    api: `predictions` or `explanations`.
    weight: how often it is sent, in proportion to the others.
    status: the right one.
    leaves: "sent" where the client leaves as soon as it has asked, "line" where it does so after a stream's first line.
    """

    api: str
    weight: int
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    image: bytes | None = None
    path: str = ""
    leaves: str = ""

    @property
    def streams(self) -> bool:
        return "Accept" in self.headers


_STREAM = {"Accept": "application/x-ndjson", **SMOOTH, "X-Explain-Samples": "16"}
_CAM = {"X-Explain-Method": "cam", "X-Explain-Target": "7"}
_NPY = {"X-Explain-Output": "npy"}
KINDS: Mapping[str, Kind] = {
    "prediction": Kind("predictions", 10),
    "Grad-CAM": Kind("explanations", 4, headers=_NPY),
    "CAM of another class": Kind("explanations", 2, headers={**_NPY, **_CAM}),
    "gradient": Kind("explanations", 1, headers={**_NPY, "X-Explain-Method": "gradient"}),
    "SmoothGrad": Kind("explanations", 2, headers={**_NPY, **SMOOTH}),
    "overlay": Kind("explanations", 1, headers={"Accept": "image/png"}),
    "describe": Kind("explanations", 1, path="/1.0/describe"),
    "deadline": Kind("explanations", 1, headers={**SMOOTH, "X-Explain-Samples": "200", "X-Explain-Deadline-Ms": "150"}),
    "stream": Kind("explanations", 1, headers=_STREAM),
    "stream left after a line": Kind("explanations", 1, headers=_STREAM, leaves="line"),
    "left after asking": Kind("explanations", 1, headers=SMOOTH, leaves="sent"),
    "not a picture": Kind("explanations", 1, 415, image=b"GIF89a" + bytes(50)),
    "unknown option": Kind("explanations", 1, 400, headers={"X-Explain-Lime": "1"}),
    "too many samples": Kind("explanations", 1, 413, headers={"X-Explain-Samples": "100000"}),
}


class Judge:
    """One client of one server, which compares the answers with known ones. known: by kind and picture."""

    def __init__(self, server: Server, images: Mapping[str, bytes], known: dict[tuple[str, str], object]) -> None:
        self._server, self._images, self._known = server, images, known
        self._session = requests.Session()

    def learn(self) -> None:
        """Asks everything once on a quiet server. Later answers are compared with these."""
        for name, kind in KINDS.items():
            for picture in self._images:
                if not kind.leaves and kind.status == 200:
                    self._known[name, picture] = _content(kind, self._post(kind, picture))

    def ask(self, chosen: random.Random) -> tuple[str, str]:
        """Sends a request of any kind. Gives the kind's name and the fault of the answer, "" where it has none.

        Raises requests.RequestException where there is no answer.
        """
        name = chosen.choices([*KINDS], [kind.weight for kind in KINDS.values()])[0]
        picture = chosen.choice([*self._images])
        return name, self._judged(name, picture)

    def _judged(self, name: str, picture: str) -> str:
        kind = KINDS[name]
        if kind.leaves == "sent":
            self._hang_up(kind, picture)
            return ""
        response = self._post(kind, picture)
        if response.status_code == 503 and kind.headers and "Retry-After" in response.headers:
            return ""
        if response.status_code != kind.status:
            return f"{response.status_code} instead of {kind.status}: {response.content[:200]!r}"
        if kind.leaves:
            next(response.iter_lines())
            response.close()
            return ""
        if kind.status != 200:
            return "" if response.json().keys() == {"code", "type", "message"} else f"{response.content[:200]!r}"
        return _difference(_content(kind, response), self._known[name, picture])

    def _post(self, kind: Kind, picture: str) -> requests.Response:
        return self._session.post(
            f"{self._server.inference}/{kind.api}/{archives.NAME}{kind.path}",
            data=kind.image or self._images[picture],
            headers={**HEADERS, **kind.headers},
            stream=kind.streams,
            timeout=TIMEOUT,
        )

    def _hang_up(self, kind: Kind, picture: str) -> None:
        """Sends a whole request, and closes the connection without waiting for the answer."""
        address = urlsplit(self._server.inference)
        image = self._images[picture]
        fields = {"Host": address.netloc, "Content-Length": str(len(image)), **kind.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with socket.create_connection((str(address.hostname), address.port or 80), timeout=TIMEOUT) as connection:
            connection.sendall(f"POST /{kind.api}/{archives.NAME} HTTP/1.1\r\n{head}\r\n".encode() + image)


def _content(kind: Kind, response: requests.Response) -> object:
    """The part of an answer that must be the same every time."""
    response.raise_for_status()
    if kind.headers.get("X-Explain-Output") == "npy":
        return np.load(io.BytesIO(response.content))
    if "X-Explain-Deadline-Ms" in kind.headers:
        quality = response.json()["explanations"][0]["quality"]
        return bool(quality["samples_used"] >= 2)
    if kind.streams and kind.headers["Accept"].startswith("image/"):
        return response.headers["X-Prediction-Index"]
    if kind.streams:
        lines = [json.loads(line) for line in response.iter_lines() if line]
        return lines[-1]["explanations"][0]["quality"]["samples_used"]
    answer = response.json()
    return {key: value for key, value in answer.items() if key != "timing_ms"}


def _difference(found: object, known: object) -> str:
    if isinstance(found, np.ndarray) and isinstance(known, np.ndarray):
        off = distance(found, known)
        return "" if off <= KINK else f"the map differs by {off:.3g} of its maximum"
    if isinstance(found, dict) and isinstance(known, dict) and all(isinstance(v, float) for v in known.values()):
        same = found.keys() == known.keys() and all(abs(found[k] - known[k]) < 1e-4 for k in known)
        return "" if same else f"predicted {found} instead of {known}"
    return "" if found == known else f"{str(found)[:200]} instead of {str(known)[:200]}"
