"""The number of slow clients that TorchServe's frontend carries: `scripts/bench frontend`.

Clients are slow in two ways. Some send a body of the largest size but for its end. Others ask for the largest answer
and do not read it. Each number of them gets a server of its own, with an archive that only answers.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import psutil
import requests

from heatserve_tools.torchserve import properties
from heatserve_tools.torchserve.server import Server, ServerError
from heatserve_tools.torchserve.shipped import SERVER_CONFIG

SHIPPED = properties.read(SERVER_CONFIG)
BODY = int(SHIPPED["max_request_size"]) - 100_000
ANSWER = 6_000_000
MANIFEST = {
    "createdOn": "01/01/1980 00:00:00",
    "runtime": "python",
    "model": {"modelName": "large", "handler": "large.py", "modelVersion": "1.0"},
    "archiverVersion": "0.12.0",
}
HANDLER = f"""
def handle(data, context):
    if data is not None:
        large = bytes({ANSWER})
        return [large if context.get_request_header(row, "large") else b"good" for row in range(len(data))]
"""


@dataclass(frozen=True)
class Carried:
    """The state of a frontend with slow clients.

    broken: the connections that it gave up.
    good: the right answers to ten requests beside them.
    megabytes: its resident memory.
    """

    broken: int
    good: int
    megabytes: float


def large_archive(folder: Path) -> Path:
    path = folder / "large.mar"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
        written.writestr("large.py", HANDLER)
    return path


def _half_sent(connection: socket.socket) -> None:
    """All of a large body but its last 1,000 bytes."""
    connection.sendall(_head(BODY) + bytes(BODY - 1000))


def _unread(connection: socket.socket) -> None:
    """A request for a large answer, of which the client takes no more than fits into its buffer."""
    connection.sendall(_head(1, "large: 1\r\n") + b"x")
    connection.recv(1, socket.MSG_PEEK)  # one at a time: the queue of requests is not measured


def _head(length: int, more: str = "") -> bytes:
    kind = "Content-Type: application/octet-stream\r\n"
    return f"POST /predictions/large HTTP/1.1\r\nHost: h\r\n{kind}{more}Content-Length: {length}\r\n\r\n".encode()


WAYS: dict[str, Callable[[socket.socket], None]] = {"half-sent bodies": _half_sent, "unread answers": _unread}


@contextlib.contextmanager
def _clients(server: Server, count: int, send: Callable[[socket.socket], None]) -> Iterator[list[socket.socket]]:
    """So many connections, which have sent their bytes unless they broke."""
    address = urlsplit(server.inference)
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(30)
            with contextlib.suppress(OSError):
                connection.connect((str(address.hostname), address.port or 80))
                send(connection)
            connections.append(connection)
        yield connections


def _broken(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection or sent an error."""
    connection.settimeout(0.01)
    try:
        start = connection.recv(20, socket.MSG_PEEK)
    except TimeoutError:
        return False
    except OSError:
        return True
    return not start.startswith(b"HTTP/1.1 200")


def measure(archive: Path, vmargs: str, count: int, way: str) -> Carried:
    """The frontend with these settings for Java, beside so many clients that are slow in one way."""
    shipped = {name: SHIPPED[name] for name in ("max_request_size", "max_response_size", "job_queue_size")}
    with Server({"large": archive}, {**shipped, "vmargs": vmargs}) as server:
        with _clients(server, count, WAYS[way]) as connections:
            time.sleep(3)
            good = sum(_good(server) for _ in range(10))
            broken = sum(_broken(connection) for connection in connections)
            megabytes = psutil.Process(server.pid).memory_info().rss / 1e6
        return Carried(broken, good, megabytes)


def _good(server: Server) -> bool:
    headers = {"Content-Type": "application/octet-stream"}
    with contextlib.suppress(requests.RequestException):
        url = f"{server.inference}/predictions/large"
        return requests.post(url, data=b"x", headers=headers, timeout=30).content == b"good"
    return False


@click.command()
@click.option("--vmargs", default=SHIPPED.get("vmargs", ""), show_default="the shipped ones", help="Settings for Java.")
@click.option("--clients", multiple=True, type=int, default=(0, 25, 50, 100), show_default=True)
def main(vmargs: str, clients: tuple[int, ...]) -> None:
    """Slow clients that TorchServe's frontend carries."""
    click.echo(f"Java: {vmargs or 'its own defaults'}; bodies of {BODY / 1e6:.1f} MB, answers of {ANSWER / 1e6:.1f} MB")
    click.echo("| slow clients | number | given up | good requests beside them | frontend, MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        archive = large_archive(Path(scratch))
        for way in WAYS:
            for count in clients:
                try:
                    found = measure(archive, vmargs, count, way)
                except ServerError as error:
                    raise click.ClickException(str(error)) from None
                click.echo(f"| {way} | {count} | {found.broken} | {found.good} of 10 | {found.megabytes:.0f} |")


if __name__ == "__main__":
    main(prog_name="scripts/bench frontend")
