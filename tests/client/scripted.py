"""A server that answers as it was told to, and remembers the requests."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Planned = tuple[int, dict[str, str], bytes]


class Scripted(ThreadingHTTPServer):
    """A server that gives prepared answers in turn and keeps the requests."""

    def __init__(self) -> None:
        self.plan: list[Planned] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Answers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        status, headers, content = self.server.plan.pop(0)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running(server: Scripted | None = None) -> Iterator[Scripted]:
    """A server on a free port that runs while the `with` block does."""
    with server or Scripted() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def refusal(code: int, message: str, **headers: str) -> Planned:
    return (
        code,
        {"Content-Type": "application/json", **headers},
        json.dumps({"code": code, "message": message}).encode(),
    )


def explained(method: str, *targets: int) -> Planned:
    """The answer to an explanation, with a picture of one pixel for each target."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1), (targets[0], 0, 0)).save(stream, "PNG")
    picture = {"format": "png", "width": 1, "height": 1, "data": base64.b64encode(stream.getvalue()).decode()}
    entry = {
        "method": method,
        "heatmap": {**picture, "scale": 1.0},
        "overlay": picture,
        "quality": {"samples_used": 1, "standard_error": None, "converged": None, "empty": False},
    }
    answer = {
        "predictions": [{"index": 1, "label": "cat", "probability": 0.9}],
        "explanations": [
            {**entry, "target": {"index": index, "label": "cat", "probability": 0.9, "score": 1.0}} for index in targets
        ],
        "image": {"width": 1, "height": 1, "seen": [0, 0, 1, 1]},
        "model": {},
        "timing_ms": {},
    }
    return 200, {}, json.dumps(answer).encode()
