"""HTTP to one server: connections, the token, retries, and the errors that they end in."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from .errors import HeatserveError
from .requests import Request

#: Statuses that mean "not now". A prediction or an explanation changes nothing on the server, so it can be asked again.
AGAIN = (429, 503)
#: The longest pause before a request is sent again, in seconds.
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Transport:
    """A server and how to talk to it. `Client` explains the fields."""

    server: SplitResult
    token: str | None
    timeout: float
    retries: int
    sleep: Callable[[float], None]

    @contextmanager
    def response(self, verb: str, path: str, request: Request) -> Iterator[http.client.HTTPResponse]:
        """A response of status 200 whose body is not read yet. Raises HeatserveError for any other."""
        for attempt in range(self.retries + 1):
            # A response that ends its connection is closed by itself alone, and holds the socket until then.
            with closing(self._connection()) as connection, self._send(connection, verb, path, request) as response:
                if response.status == 200:
                    try:
                        yield response
                    except (OSError, http.client.HTTPException) as error:
                        raise HeatserveError(0, f"the answer broke off: {error}") from error
                    return
                refusal = _refusal(response)
                if refusal.code not in AGAIN or attempt == self.retries:
                    raise refusal
            pause = refusal.retry_after if refusal.retry_after is not None else 2.0**attempt
            self.sleep(min(pause, LONGEST_PAUSE))

    def content(self, verb: str, path: str, request: Request) -> bytes:
        """The body of the response. Raises HeatserveError."""
        with self.response(verb, path, request) as response:
            return response.read()

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.server.scheme == "https" else http.client.HTTPConnection
        return kind(str(self.server.hostname), self.server.port, timeout=self.timeout)

    def _send(
        self, connection: http.client.HTTPConnection, verb: str, path: str, request: Request
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/octet-stream", **request.headers}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(verb, self.server.path.rstrip("/") + path, request.body, headers)
            return connection.getresponse()
        except socket.timeout as error:
            raise HeatserveError(0, f"no answer within {self.timeout:g} seconds") from error
        except (OSError, http.client.HTTPException) as error:
            raise HeatserveError(0, f"{self.server.netloc} does not answer: {error}") from error


def server_of(url: str) -> SplitResult:
    """The parts of a server's address. Raises ValueError for other text."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"the server's address goes http://host:port, not {url!r}")
    return parts


def _refusal(response: http.client.HTTPResponse) -> HeatserveError:
    content = response.read(65_536)
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = response.reason or "refused without a word"
    after = response.headers.get("Retry-After", "")
    return HeatserveError(response.status, message, float(after) if after.isdigit() else None)
