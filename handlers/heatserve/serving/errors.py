"""Refusals: every error that a client may get, with its status. This is the one place where a fault becomes one."""

from __future__ import annotations

import traceback

from ..engine import UnsuitableModel, is_device_lost, is_out_of_memory
from ..imaging import ImageTooLarge, UnreadableImage

#: For each status: the `type` in the body, and its meaning for the client.
STATUSES = {
    400: ("BadRequest", "the client can correct it: the message names the option and the allowed values"),
    406: ("NotAcceptable", "nothing in `Accept` can be sent"),
    413: (
        "PayloadTooLarge",
        "too many bytes, pixels or samples, too costly to decode, or an answer beyond `max_response_bytes`",
    ),
    415: ("UnsupportedMediaType", "not a picture that can be decoded (JPEG, PNG, WebP, GIF, BMP, TIFF)"),
    500: ("InternalServerError", "the handler failed on this row; its log says where, without the request's text"),
    503: (
        "ServiceUnavailable",
        "too much work is under way or waits to be decoded; `Retry-After` says when to come again",
    ),
    507: ("InsufficientStorage", "out of memory, after halving the batch down to one row"),
}


class Refusal(Exception):
    """A refusal of a request.

    code: the status.
    message: a sentence for the client. It holds no path and no traceback, and of the request a short option name at
        most.
    retry_after: seconds after which the client may ask again; None for a request that would be refused again.
    """

    def __init__(self, code: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """The name of the status."""
        return STATUSES[self.code][0]

    def body(self, kserve: bool = False) -> dict[str, object]:
        """The error in TorchServe's own shape; kserve: with the member `error` that KServe's clients look for."""
        own: dict[str, object] = {"code": self.code, "type": self.type, "message": self.message}
        if self.retry_after is not None:
            own["retry_after"] = self.retry_after
        return {"error": self.message, **own} if kserve else own


def refusal_of(error: BaseException) -> Refusal:
    """The refusal that a client gets for an exception of any type.

    A refusal lives until its row is answered. It loses its traceback, cause and context, as their frames hold the row
    itself, and that circle would live until a full garbage collection.
    """
    if isinstance(error, Refusal):
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return error
    if isinstance(error, UnreadableImage):
        return Refusal(415, str(error))
    if isinstance(error, ImageTooLarge):
        return Refusal(413, str(error))
    if is_out_of_memory(error):
        return Refusal(507, "out of memory while computing this answer; send fewer samples or a smaller image")
    if isinstance(error, UnsuitableModel):  # of this picture alone: the network was tried at load
        return Refusal(500, printable(str(error).partition("\n")[0], 400))
    if is_device_lost(error):
        return Refusal(500, "the server's accelerator failed; its worker starts again: ask once more in a moment")
    return Refusal(500, "the server failed on this request; its log says where")


def where(error: BaseException) -> str:
    """An exception for the log: its type and the lines that raised it, without its text, which may be a client's."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"


def printable(text: object, limit: int = 40) -> str:
    """A value from outside, made safe for a log line, a metric or a sentence: short, ASCII, one line.

    A value that is no text is shown as its type, as a list that is nested deeply enough cannot be written out.
    """
    shown = text if isinstance(text, str) else type(text).__name__
    safe = "".join(c if c.isascii() and c.isprintable() and c not in "#|\\" else "?" for c in shown[:limit])
    return safe + ("..." if len(shown) > limit else "")
