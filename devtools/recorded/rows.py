"""Rows as TorchServe's worker hands them over, one function for each way that a client sends."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One request.

    parameters: name, content type and value of each part; a JSON body is parsed, as TorchServe does it.
    headers: of HTTP, and those that the frontend adds.
    arrives: the number of the call in which it comes for the first time.
    leaves: the number of the call before which its client hangs up; None for never.
    """

    parameters: tuple[tuple[str, str | None, Any], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    arrives: int = 0
    leaves: int | None = None


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def http(explains: bool | None, path: str = "", **headers: str) -> dict[str, str]:
    """Headers of a row that came over HTTP; explains: None by /invocations, which does not say."""
    said = {} if explains is None else {"explain": str(explains), "url_path": path}
    return {"content-length": "1", **said, **{name.replace("_", "-"): value for name, value in headers.items()}}


def raw(content: bytes, explains: bool | None = True, path: str = "", **headers: str) -> Row:
    return Row((("body", "image/png", content),), http(explains, path, **headers))


def member(content: bytes, explains: bool | None = True, path: str = "", **options: Any) -> Row:
    """A picture in a JSON member, with options beside it."""
    return body({"data": b64(content), **options}, explains, path)


def body(content: Any, explains: bool | None = True, path: str = "", **headers: str) -> Row:
    """A JSON body."""
    return Row((("body", "application/json", content),), http(explains, path, **headers))


def form(content: bytes, explains: bool | None = True, **fields: str) -> Row:
    """A form of several parts; fields of text come as bytes."""
    parts = [("data", "image/png", content), *((name, None, value.encode()) for name, value in fields.items())]
    return Row(tuple(parts), http(explains))


def grpc(content: bytes, **fields: str) -> Row:
    """Inputs over gRPC: there is no HTTP header at all."""
    return Row((("data", None, content), *((name, None, value.encode()) for name, value in fields.items())))


def tensors(*inputs: Any, explains: bool | None = True, **members: Any) -> Row:
    """A body of KServe's second protocol."""
    return body({"inputs": list(inputs), **members}, explains)


def pictures(*images: bytes, **parameters: Any) -> dict[str, Any]:
    """An input of encoded pictures for KServe's second protocol."""
    return {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "data": [b64(image) for image in images],
        "parameters": parameters,
    }
