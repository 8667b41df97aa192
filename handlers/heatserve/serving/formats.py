"""The forms that an answer can have: one row for each, with its name, media type and encoder.

A further picture format is a row here and an encoder in `imaging`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from ..imaging import jpeg_file, npy_file, png_file, webp_file
from .answers import JSON, json_bytes


class Content(enum.Enum):
    """The content of a format, which its encoder takes.

    DOCUMENT: JSON values.
    PICTURE: an RGB picture, and text by name that describes it.
    ARRAY: the maps on the model's view.
    LINES: the bytes of a document, for each line.
    """

    DOCUMENT = "document"
    PICTURE = "picture"
    ARRAY = "array"
    LINES = "lines"


@dataclass(frozen=True)
class Format:
    """One form of an answer.

    name: the value of the option `output`.
    media_type: as `Accept` and `Content-Type` name it.
    encode: gives the bytes; its arguments are as `content` says.
    """

    name: str
    media_type: str
    content: Content
    encode: Callable[..., bytes]


def _without_text(encode: Callable[[Image.Image], bytes]) -> Callable[[Image.Image, Mapping[str, str]], bytes]:
    """The encoder of a picture format that has no place for text."""
    return lambda picture, _text: encode(picture)


def _line(document: bytes) -> bytes:
    return document + b"\n"


#: In order of preference: of formats that `Accept` likes equally the first one is sent.
_ALL = (
    Format("json", JSON, Content.DOCUMENT, json_bytes),
    Format("png", "image/png", Content.PICTURE, png_file),
    Format("webp", "image/webp", Content.PICTURE, _without_text(webp_file)),
    Format("jpeg", "image/jpeg", Content.PICTURE, _without_text(jpeg_file)),
    Format("npy", "application/x-npy", Content.ARRAY, npy_file),
    Format("ndjson", "application/x-ndjson", Content.LINES, _line),
)

FORMATS: Mapping[str, Format] = {form.name: form for form in _ALL}
#: The values of the option `output`. Lines are asked for by the option `stream`, or by `Accept`.
OUTPUTS = tuple(form.name for form in _ALL if form.content is not Content.LINES)
