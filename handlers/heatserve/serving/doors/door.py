"""What a door is: the instances that came in by it, and how their answers go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Refusal

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..responses import Answer, Writer


@dataclass(frozen=True)
class Instance:
    """One picture of a row as it was sent, and what was asked of it.

    image: the encoded picture, bytes or base64 text, not yet looked at. tensor: the model's view itself instead,
    numbers in any nesting, of the given shape (3, H, W). refusal: what is wrong already.
    """

    image: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tensor: Any = None
    shape: tuple[int, ...] = ()
    refusal: Refusal | None = None


class Door(Protocol):
    """One row. explains: whether maps were asked for. plain: one picture, whose answer is the body, in any of the media
    types; other doors answer in an envelope of JSON. pictures: whether that may hold pictures in place of maps. http:
    whether it came over HTTP, else over gRPC."""

    explains: bool
    http: bool
    plain: bool
    pictures: bool

    @property
    def instances(self) -> Sequence[Instance]: ...

    def answer(self, writer: Writer, exchanges: Sequence[Exchange]) -> Answer:
        """The one answer of all its instances, in the shape that the door's clients expect. May raise Refusal."""
        ...

    def refused(self, writer: Writer, refusal: Refusal) -> Answer:
        """The answer where there is nothing else to say. Never raises."""
        ...


def over_http(headers: Mapping[str, Any]) -> bool:
    """Whether a row came over HTTP: there the frontend writes this header for each body. Over gRPC there are none, but
    every input has an entry under its own name, which a client chooses; what is in it is no text."""
    return any(
        isinstance(name, str) and name.lower() == "content-length" and isinstance(value, str)
        for name, value in headers.items()
    )


def members(name: str, value: Any, most: int) -> list[Any] | Refusal:
    """A list of 1 to `most` instances; or what is wrong with it."""
    if not isinstance(value, list) or not value:
        return Refusal(400, f"{name} must be a list with one member or more")
    if len(value) > most:
        return Refusal(413, f"{name}: at most {most} in one request")
    return value


#: Instances in one request, and maps of them all. Each may be refused for its own pixels, samples and work.
MOST = MAX_MAPS = 64
