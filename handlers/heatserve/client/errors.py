"""The client's one error."""

from __future__ import annotations


class HeatserveError(Exception):
    """The server refused a request, or did not answer it.

    code: the HTTP status. It is 0 if there was no answer, or one that is not heatserve's.
    message: the server's words.
    retry_after: the seconds that the server asks the client to wait, if it names them.
    """

    def __init__(self, code: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
