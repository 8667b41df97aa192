"""Content negotiation: the form of an answer, from the options `output` and `stream` and the header `Accept`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .answers import Envelope
from .errors import Refusal
from .formats import FORMATS, Content

_MAX_RANGES = 50
#: A quality of `Accept` (RFC 9110, 12.4.2).
_QUALITY = re.compile(r"0?(\.[0-9]{0,3})?|1(\.0{0,3})?")


def negotiated(options: Mapping[str, Any], headers: Mapping[str, Any], envelope: Envelope) -> tuple[str, bool]:
    """The name of the answer's format, and whether it is a stream of lines. Options win over `Accept`.

    Raises Refusal 400 or 406.
    """
    if envelope is not Envelope.NONE:
        return _enveloped(options, envelope), False
    if options["stream"]:
        if options["output"] not in (None, "json"):
            raise Refusal(400, "stream sends lines of JSON: leave output out, or ask for json")
        return "json", True
    output = options["output"] or _preferred(headers)
    return ("json", True) if FORMATS[output].content is Content.LINES else (output, False)


def _enveloped(options: Mapping[str, Any], envelope: Envelope) -> str:
    """The form of a part inside an envelope. There `Accept` speaks of the envelope and is left out of account."""
    if options["stream"]:
        raise Refusal(400, "stream has no meaning here; send one picture to /explanations/{model}")
    output: str = options["output"] or "json"
    if output != "json" and envelope is Envelope.JSON:
        raise Refusal(400, "output: this route answers JSON; overlay: true adds the picture")
    return output


def _preferred(headers: Mapping[str, Any]) -> str:
    """The format that `Accept` likes best (RFC 9110, 12.5.1); json for a row without this header."""
    accept = next((v for k, v in headers.items() if isinstance(k, str) and k.lower() == "accept"), None)
    if not isinstance(accept, str) or not accept.strip():
        return "json"
    qualities = _qualities(accept)
    best = max(FORMATS.values(), key=lambda form: _quality(form.media_type, qualities))
    if _quality(best.media_type, qualities) <= 0:
        allowed = ", ".join(form.media_type for form in FORMATS.values())
        raise Refusal(406, f"none of the accepted types can be sent; there are: {allowed}")
    return best.name


def _qualities(accept: str) -> dict[str, float]:
    """The quality of each media range in a header; 0 for a quality that is none."""
    qualities: dict[str, float] = {}
    for part in accept.split(",")[:_MAX_RANGES]:
        media_range, *parameters = [piece.strip().lower() for piece in part.split(";")]
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        qualities[media_range] = float(f"0{quality}") if _QUALITY.fullmatch(quality) else 0.0
    return qualities


def _quality(media_type: str, qualities: Mapping[str, float]) -> float:
    """The quality of the most specific range that holds a media type; 0 for a type that is in none."""
    for media_range in (media_type, media_type.split("/")[0] + "/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range]
    return 0.0
