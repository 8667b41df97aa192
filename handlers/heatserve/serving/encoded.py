"""The bytes of a picture that a client sent as bytes, base64 text or a data URL."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from .errors import Refusal

#: Bytes that are base64 text, perhaps behind the head of a data URL.
_TEXT = re.compile(rb"(data:image/[\w+.-]{1,60};base64,)?[A-Za-z0-9+/=\s]+")


def picture_bytes(image: Any) -> bytes:
    """The encoded picture, without base64 around it. Raises Refusal 400 for anything that holds none."""
    if isinstance(image, Mapping) and set(image) == {"b64"}:
        image = image["b64"]
    if isinstance(image, (bytes, bytearray)) and image:
        # A form's text field and gRPC's bytes may hold base64. No picture consists of the letters of base64 alone.
        decoded = _decoded(bytes(image).decode("ascii")) if _TEXT.fullmatch(image) else None
        return bytes(image) if decoded is None else decoded
    if isinstance(image, str) and image:
        decoded = _decoded(image)
        if decoded is None:
            raise Refusal(400, "data is not valid base64")
        return decoded
    raise Refusal(400, "no image: send it as the body, as form field data, or base64 in JSON member data")


def _decoded(text: str) -> bytes | None:
    """The bytes of base64 text or of a data URL; None for text that is neither."""
    try:
        bare = re.sub(r"^data:[\w/+.-]{1,60};base64,", "", text.strip())
        return base64.b64decode("".join(bare.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
