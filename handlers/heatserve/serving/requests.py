"""A client's input as a request with checked options, or the refusal that names the option that is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine import FORWARD, Query, work_of
from .accept import negotiated
from .answers import Envelope
from .encoded import picture_bytes
from .errors import Refusal
from .formats import FORMATS, Content
from .options import OPTIONS
from .protocols import Input, RowProtocol
from .queries import queries
from .settings import Limits
from .vocabulary import Vocabulary, parse, unknown

_HEADER = "x-explain-"
#: The largest number of a normalised view. Beyond it a network only overflows.
_LARGEST = 1e6


@dataclass(frozen=True)
class Request:
    """One picture and the answer that a client wants for it.

    image: the encoded picture; empty for a tensor, and for a request that describes.
    tensor: the model's view itself, float32 (channels, H, W).
    queries: one for each map; empty for a prediction.
    output: the name of a format.
    top_k: how many predictions to list; None for a prediction that names no number.
    describes: whether the client asks for the archive's description, without a picture.
    """

    image: bytes = b""
    tensor: NDArray[np.float32] | None = None
    queries: tuple[Query, ...] = ()
    output: str = "json"
    overlay: bool = OPTIONS["overlay"].default
    colormap: str = OPTIONS["colormap"].default
    opacity: float = OPTIONS["opacity"].default
    boxes: bool = OPTIONS["boxes"].default
    box_threshold: float = OPTIONS["box_threshold"].default
    top_k: int | None = None
    deadline_ms: int | None = None
    stream: bool = False
    describes: bool = False

    @property
    def work(self) -> int:
        """The price in forward passes: of the pass that predictions share, and of the queries beyond it."""
        return FORWARD + work_of(self.queries)

    @property
    def shows_photograph(self) -> bool:
        """Whether the answer shows the photograph itself, below a map. Otherwise its size is enough."""
        return bool(self.queries) and (self.overlay or FORMATS[self.output].content is Content.PICTURE)


@dataclass(frozen=True)
class RequestParser:
    """Parses the requests of one archive.

    vocabulary: the meaning of the archive's words.
    defaults: options by name that the archive changes.
    view: (height, width) of the model's view.
    channels: of the model's view.
    """

    vocabulary: Vocabulary
    defaults: Mapping[str, Any]
    limits: Limits
    view: tuple[int, int]
    channels: int = 3

    def parse(self, sent: Input, protocol: RowProtocol, headers: Mapping[str, Any]) -> Request:
        """The request of one input of a row. Raises Refusal (400, 406, 413)."""
        if sent.refusal is not None:
            raise sent.refusal
        alone = protocol.envelope is Envelope.NONE
        if alone and protocol.explains and _path(headers) == ["describe"]:
            return Request(describes=True)
        if not protocol.explains:
            image, tensor = self._picture(sent)
            return Request(image, tensor, top_k=self._lenient_top_k(sent.options, headers))
        # Over gRPC there are no headers, but inputs under any name that a client likes.
        options, named = self._options(sent.options, headers if protocol.http else {})
        output, stream = negotiated(options, headers, protocol.envelope)
        maps = queries(options, named, self.defaults, self.limits.max_samples, self.vocabulary, self.view)
        present = any(query.least is not None for query in maps)  # their number is not known yet
        if alone and FORMATS[output].content is Content.PICTURE and len(maps) > 1 and not present:
            raise Refusal(400, f"output {output} shows one map; for several targets ask for json")
        image, tensor = self._picture(sent)
        return Request(
            image,
            tensor,
            maps,
            output=output,
            overlay=options["overlay"],
            colormap=options["colormap"],
            opacity=options["opacity"],
            boxes=options["boxes"],
            box_threshold=options["box_threshold"],
            top_k=min(options["top_k"], self.vocabulary.classes),
            deadline_ms=options["deadline_ms"],
            stream=stream,
        )

    def _picture(self, sent: Input) -> tuple[bytes, NDArray[np.float32] | None]:
        """The encoded picture, or empty bytes and the model's view."""
        if sent.tensor is None:
            image = picture_bytes(sent.image)
            if len(image) > self.limits.max_image_bytes:
                raise Refusal(413, f"the picture has {len(image)} bytes; at most {self.limits.max_image_bytes} allowed")
            return image, None
        shape = (self.channels, *self.view)
        if sent.shape != shape:
            sides = ", ".join(map(str, shape))
            raise Refusal(400, f"shape: the model's view is ({sides}), or (N, {sides})")
        if not (np.abs(sent.tensor) <= _LARGEST).all():
            raise Refusal(400, f"data must be numbers from -{_LARGEST:g} to {_LARGEST:g}")
        return b"", sent.tensor

    def _options(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[dict[str, Any], Collection[str]]:
        """All options by name, and the names of those that the client gave.

        Fields win over headers, headers over the path, the path over the archive's defaults.
        """
        given: dict[str, Any] = {**_path_options(headers), **_header_options(headers)}
        for name, value in fields.items():
            if name != "explain" and (value is not None or name not in OPTIONS):
                given[name] = value
        options = {name: self.defaults.get(name, option.default) for name, option in OPTIONS.items()}
        for name, value in given.items():
            options[name] = parse(name, value, self.vocabulary)
        return options, given.keys()

    def _lenient_top_k(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> int | None:
        """The one option of `/predictions`, which like the stock handler refuses no value."""
        value = fields.get("top_k", _header_options(headers, strict=False).get("top_k"))
        try:
            return None if value is None else min(parse("top_k", value, self.vocabulary), self.vocabulary.classes)
        except Refusal:
            return None


def _path(headers: Mapping[str, Any]) -> list[str]:
    """The parts of the address behind /explanations/{model}/{version}/."""
    path = headers.get("url_path")
    return [part for part in path.split("/") if part] if isinstance(path, str) else []


def _path_options(headers: Mapping[str, Any]) -> dict[str, str]:
    """The option that the address holds. Raises Refusal 400 for an address that is too long."""
    parts = _path(headers)
    if len(parts) > 1:
        raise Refusal(400, "the path goes /explanations/{model}/{version}/{method} and no further")
    return {"method": parts[0]} if parts else {}


def _header_options(headers: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
    """The options that headers hold. strict: raises Refusal 400 for a header of an unknown option."""
    found: dict[str, Any] = {}
    for key, value in headers.items():
        if isinstance(key, str) and key.lower().startswith(_HEADER):
            name = key.lower()[len(_HEADER) :].replace("-", "_")
            if name in OPTIONS:
                found[name] = value
            elif strict:
                raise unknown(name)
    return found
