"""From an instance as it was sent to a request; or to a refusal that names what is wrong."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine import METHODS, Query
from .doors import Door, Instance
from .errors import Refusal
from .options import MEDIA_TYPES, OPTIONS, PICTURES, STREAM, Vocabulary, parse, unknown
from .settings import Limits

_HEADER = "x-explain-"
#: Of a number in the model's normalised view: beyond it only overflow is to be seen.
_LARGEST = 1e6


@dataclass(frozen=True)
class Request:
    """image: the encoded picture. tensor: the model's view itself instead, float32 (3, H, W). queries: empty for a
    prediction, else one for each map. `top_k`: None where a prediction did not ask for a number. describes: asks what
    there is to ask for, and has no image."""

    image: bytes = b""
    tensor: NDArray[np.float32] | None = None
    queries: tuple[Query, ...] = ()
    output: str = "json"
    overlay: bool = False
    colormap: str = "jet"
    opacity: float = 0.6
    boxes: bool = False
    box_threshold: float = 0.2
    top_k: int | None = None
    deadline_ms: int | None = None
    stream: bool = False
    describes: bool = False

    @property
    def work(self) -> int:
        """Its cost in forward passes, roughly: a backward pass counts two."""
        return 1 + sum(3 * q.count for q in self.queries if q.smoothed or q.through_input)


@dataclass(frozen=True)
class Reader:
    """Reads requests for one archive: what its words mean, its defaults and limits, the (height, width) of its view."""

    vocabulary: Vocabulary
    defaults: Mapping[str, Any]
    limits: Limits
    view: tuple[int, int]

    def read(self, instance: Instance, door: Door, headers: Mapping[str, Any]) -> Request:
        """Raises Refusal (400, 406, 413)."""
        if instance.refusal is not None:
            raise instance.refusal
        if door.plain and door.explains and _path(headers) == ["describe"]:
            return Request(describes=True)
        if not door.explains:
            image, tensor = self._picture(instance)
            return Request(image, tensor, top_k=self._lenient_top_k(instance.options, headers))
        # Over gRPC there are no headers, but inputs of any name that a client likes.
        options = self._options(instance.options, headers if door.http else {})
        output, stream = _output(options, headers) if door.plain else _enveloped(options, door.pictures)
        queries = self._queries(options)
        if output in PICTURES and door.plain and len(queries) > 1:
            raise Refusal(400, f"output {output} shows one map; for several targets ask for json")
        image, tensor = self._picture(instance)
        return Request(
            image,
            tensor,
            queries,
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

    def _picture(self, instance: Instance) -> tuple[bytes, NDArray[np.float32] | None]:
        if instance.tensor is None:
            image = _image_bytes(instance.image)
            if len(image) > self.limits.max_image_bytes:
                raise Refusal(413, f"the picture has {len(image)} bytes; at most {self.limits.max_image_bytes} allowed")
            return image, None
        height, width = self.view
        if instance.shape != (3, height, width):
            raise Refusal(400, f"shape: the model's view is (3, {height}, {width}), or (N, 3, {height}, {width})")
        if not (np.abs(instance.tensor) <= _LARGEST).all():
            raise Refusal(400, f"data must be numbers from -{_LARGEST:g} to {_LARGEST:g}")
        return b"", instance.tensor

    def _options(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> dict[str, Any]:
        """Fields win over headers, headers over the path, the path over the archive's defaults."""
        given: dict[str, Any] = {**_path_options(headers), **_header_options(headers)}
        for name, value in fields.items():
            if name != "explain" and (value is not None or name not in OPTIONS):
                given[name] = value
        options = {name: self.defaults.get(name, option.default) for name, option in OPTIONS.items()}
        for name, value in given.items():
            options[name] = parse(name, value, self.vocabulary)
        return options

    def _queries(self, options: Mapping[str, Any]) -> tuple[Query, ...]:
        method = METHODS[options["method"]]
        target = options["target"]
        ranks = range(int(target[3:])) if str(target).startswith("top") else range(1)
        samples = options["samples"]
        if samples is None:
            until = options["standard_error"] is not None and method.samples > 1
            samples = self.limits.max_samples // len(ranks) if until else method.samples
        if samples > self.limits.max_samples:
            raise Refusal(413, f"samples: at most {self.limits.max_samples} are allowed here")
        if samples < method.min_samples:
            raise Refusal(400, f"samples must be at least {method.min_samples} for {method.name}")
        if options["layer"] is not None and method.signal == "input":
            raise Refusal(400, f"layer has no meaning for {method.name}, which is a method of the input")
        if options["layer"] is not None and method.needs_linear_head:
            raise Refusal(400, f"layer has no meaning for {method.name}, which takes the layer that the network pools")
        if method.statistic == "variance" and options["noise_level"] == 0:
            raise Refusal(400, f"noise_level must be above 0 for {method.name}: equal copies have no variance")
        error = options["standard_error"]
        if samples == 1 and error == self.defaults.get("standard_error"):
            error = None  # the archive's wish for smoothed maps, and this is none
        if error is not None and samples == 1:
            raise Refusal(400, "standard_error belongs to smoothed maps: ask for samples too, as the most to take")
        queries = tuple(
            Query(
                method=method.name,
                target=target if isinstance(target, int) else None,
                rank=rank,
                contrast=options["contrast"],
                layer=options["layer"],
                samples=samples,
                noise_level=options["noise_level"],
                seed=options["seed"],
                standard_error=error,
            )
            for rank in ranks
        )
        if len(queries) * samples > self.limits.max_samples:
            raise Refusal(413, f"targets x samples: at most {self.limits.max_samples} are allowed here")
        return queries

    def _lenient_top_k(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> int | None:
        """`/predictions` knows one option and, like the stock handler, complains about none."""
        value = fields.get("top_k", _header_options(headers, strict=False).get("top_k"))
        try:
            return None if value is None else min(parse("top_k", value, self.vocabulary), self.vocabulary.classes)
        except Refusal:
            return None


_TEXT = re.compile(rb"(data:image/[\w+.-]{1,60};base64,)?[A-Za-z0-9+/=\s]+")


def _image_bytes(image: Any) -> bytes:
    if isinstance(image, Mapping) and set(image) == {"b64"}:
        image = image["b64"]
    if isinstance(image, (bytes, bytearray)) and image:
        # A form's text field and gRPC's bytes may hold base64; no picture is made of its letters alone.
        decoded = _decoded(bytes(image).decode("ascii")) if _TEXT.fullmatch(image) else None
        return bytes(image) if decoded is None else decoded
    if isinstance(image, str) and image:
        decoded = _decoded(image)
        if decoded is None:
            raise Refusal(400, "data is not valid base64")
        return decoded
    raise Refusal(400, "no image: send it as the body, as form field data, or base64 in JSON member data")


def _decoded(text: str) -> bytes | None:
    """Base64, as it is or behind `data:image/...;base64,`; None where it is none."""
    try:
        bare = re.sub(r"^data:[\w/+.-]{1,60};base64,", "", text.strip())
        return base64.b64decode("".join(bare.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _path(headers: Mapping[str, Any]) -> list[str]:
    """What stands behind /explanations/{model}/{version}/."""
    path = headers.get("url_path")
    return [part for part in path.split("/") if part] if isinstance(path, str) else []


def _path_options(headers: Mapping[str, Any]) -> dict[str, str]:
    parts = _path(headers)
    if len(parts) > 1:
        raise Refusal(400, "the path goes /explanations/{model}/{version}/{method} and no further")
    return {"method": parts[0]} if parts else {}


def _header_options(headers: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in headers.items():
        if isinstance(key, str) and key.lower().startswith(_HEADER):
            name = key.lower()[len(_HEADER) :].replace("-", "_")
            if name in OPTIONS:
                found[name] = value
            elif strict:
                raise unknown(name)
    return found


def _output(options: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[str, bool]:
    """The form of the answer, and whether it comes as a stream of lines: options first, then the Accept header."""
    if options["stream"]:
        if options["output"] not in (None, "json"):
            raise Refusal(400, "stream sends lines of JSON: leave output out, or ask for json")
        return "json", True
    output = options["output"] or _accepted(headers)
    return ("json", True) if output == STREAM else (output, False)


def _enveloped(options: Mapping[str, Any], pictures: bool) -> tuple[str, bool]:
    """What goes into an envelope of JSON: Accept speaks of the envelope."""
    if options["stream"]:
        raise Refusal(400, "stream has no meaning here; send one picture to /explanations/{model}")
    output = options["output"] or "json"
    if output != "json" and not pictures:
        raise Refusal(400, "output: this route answers JSON; overlay: true adds the picture")
    return output, False


def _accepted(headers: Mapping[str, Any]) -> str:
    """What an Accept header likes best of all that can be sent (RFC 9110, 12.5.1); json where there is none."""
    accept = next((v for k, v in headers.items() if isinstance(k, str) and k.lower() == "accept"), None)
    if not isinstance(accept, str) or not accept.strip():
        return "json"
    ranges: dict[str, float] = {}
    for part in accept.split(",")[:50]:
        media, *parameters = [piece.strip().lower() for piece in part.split(";")]
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        ranges[media] = float(f"0{quality}") if re.fullmatch(r"0?(\.[0-9]{0,3})?|1(\.0{0,3})?", quality) else 0.0

    def liking(media: str) -> float:
        for pattern in (media, media.split("/")[0] + "/*", "*/*"):
            if pattern in ranges:
                return ranges[pattern]
        return 0.0

    best = max(MEDIA_TYPES, key=lambda output: liking(MEDIA_TYPES[output]))
    if liking(MEDIA_TYPES[best]) <= 0:
        raise Refusal(406, f"none of the accepted types can be sent; there are: {', '.join(MEDIA_TYPES.values())}")
    return best
