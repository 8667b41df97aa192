"""A picture and its options as the body and the headers of a request."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union

#: The bytes of an encoded picture, or the path of its file.
Picture = Union[bytes, bytearray, str, "os.PathLike[str]"]


class Request(NamedTuple):
    """A request that the server can decode."""

    body: bytes | None
    headers: Mapping[str, str]


def encode(picture: Picture, options: Mapping[str, Any]) -> Request:
    """The request for one picture. Options that are None are left out.

    The picture is the body and the options are headers. A header holds ASCII only, so options in another script make
    the body JSON. Raises OSError if the file cannot be read.
    """
    content = bytes(picture) if isinstance(picture, (bytes, bytearray)) else Path(picture).read_bytes()
    given = {name: value for name, value in options.items() if value is not None}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
    if all(text.isascii() and text.isprintable() for text in texts.values()):
        return Request(content, {f"X-Explain-{name.replace('_', '-')}": text for name, text in texts.items()})
    body = json.dumps({**texts, "data": base64.b64encode(content).decode("ascii")})
    return Request(body.encode(), {"Content-Type": "application/json"})
