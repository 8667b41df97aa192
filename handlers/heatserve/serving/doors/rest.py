"""One picture and its options: raw bodies, forms, JSON, `/invocations`, and gRPC's map of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Refusal
from .door import Instance

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..responses import Answer, Writer

IMAGE_FIELDS = ("data", "body")
#: What `/invocations` finds its model by, and hands on with the rest of the address.
_ADDRESS = ("model_name",)


class Rest:
    """The answer is what was asked for: JSON, a picture, an array, lines of a stream."""

    plain = True
    pictures = True

    def __init__(self, instance: Instance, explains: bool, http: bool) -> None:
        self.explains, self.http = explains, http
        self.instances: Sequence[Instance] = (instance,)

    def answer(self, writer: Writer, exchanges: Sequence[Exchange]) -> Answer:
        return writer.alone(exchanges[0])

    def refused(self, writer: Writer, refusal: Refusal) -> Answer:
        return writer.refused(refusal)


def json_body(row: Any) -> Mapping[Any, Any] | None:
    """The members of a row's JSON body, which TorchServe has parsed; None where it has none."""
    body = row.get("body") if isinstance(row, Mapping) and "data" not in row else None
    return body if isinstance(body, Mapping) else None


def instance_of(row: Any) -> Instance:
    """The one picture of a row, and its options: members of a JSON body before those of the address."""
    outer = row if isinstance(row, Mapping) else {}
    inner = json_body(row)
    source = outer if inner is None else inner
    fields = {str(name): value for name, value in {**outer, **source}.items() if name not in (*IMAGE_FIELDS, *_ADDRESS)}
    return Instance(source.get("data") or source.get("body"), fields)
