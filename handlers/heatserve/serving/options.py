"""The options of a request: names, types, ranges and defaults, in one place.

Requests, the archive's defaults, the README's table and the error messages all read this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine import METHODS
from ..imaging import COLORMAPS
from .errors import Refusal, printable

#: Pictures of the map laid over the photograph.
PICTURES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
OUTPUTS = {"json": "application/json", **PICTURES, "npy": "application/x-npy"}
STREAM = "ndjson"
MEDIA_TYPES = {**OUTPUTS, STREAM: "application/x-ndjson"}
MAX_TARGETS = 10
MAX_DEADLINE_MS = 3_600_000
_LONGEST = 500


@dataclass(frozen=True)
class Option:
    """kind: integer, number, boolean, choice, class (index or label), target or layer. Ranges include their ends.

    words: what is allowed, where the range does not say it.
    """

    name: str
    kind: str
    default: Any
    summary: str
    low: float | None = None
    high: float | None = None
    choices: Sequence[str] = ()
    words: str = ""

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.words or self.choices:
            return self.words or ", ".join(self.choices)
        if self.kind == "boolean":
            return "true or false"
        if self.kind == "target":
            return f"a class index or label, predicted, or top1 to top{MAX_TARGETS}"
        if self.kind == "class":
            return "a class index or label"
        if self.kind == "layer":
            return "a layer that the archive taps"
        assert self.low is not None and self.high is not None
        if self.kind == "integer":
            return f"a whole number from {int(self.low)} to {int(self.high)}"
        return f"a number from {self.low:g} to {self.high:g}"


_ALL = (
    Option("method", "choice", "gradcam", "how to explain", choices=tuple(METHODS)),
    Option("target", "target", "predicted", "the class to explain; topN gives one map for each"),
    Option("contrast", "class", None, "explain the target's score minus this class's"),
    Option(
        "samples",
        "integer",
        None,
        "noisy copies to average; 1 is no smoothing; default 50 for smoothgrad and kin",
        1,
        1e9,
        words="a whole number from 1 to the archive's max_samples",
    ),
    Option(
        "standard_error",
        "number",
        None,
        "end the samples once the map's relative standard error is this small; samples, else max_samples, is the most",
        0.001,
        10,
    ),
    Option("noise_level", "number", 0.15, "noise as a share of the input's range (useful: 0.10 to 0.20)", 0, 1),
    Option("seed", "integer", 0, "of the noise: the same seed gives the same map", 0, 2**53),
    Option("layer", "layer", None, "the layer that CAM-family maps come from"),
    Option("top_k", "integer", 5, "how many predictions to list", 1, 1000),
    Option(
        "output",
        "choice",
        None,
        "form of the answer; else the Accept header decides, else json",
        choices=tuple(OUTPUTS),
    ),
    Option("overlay", "boolean", False, "add the picture with the map laid over it to a JSON answer"),
    Option("colormap", "choice", "jet", "colours of the overlay", choices=tuple(COLORMAPS)),
    Option("opacity", "number", 0.6, "of the overlay's colour", 0, 1),
    Option("boxes", "boolean", False, "add the box around the map's largest region"),
    Option("box_threshold", "number", 0.2, "a region is what reaches this share of the maximum", 0.01, 1),
    Option(
        "deadline_ms",
        "integer",
        None,
        "answer a smoothed map after this time with the samples that there are",
        1,
        MAX_DEADLINE_MS,
    ),
    Option("stream", "boolean", False, "send a smoothed map as it gets better, a line of JSON each time"),
)

OPTIONS: Mapping[str, Option] = {option.name: option for option in _ALL}


@dataclass(frozen=True)
class Vocabulary:
    """What words mean for one archive: its classes, labels and layers."""

    classes: int
    labels: Mapping[int, str] = field(default_factory=dict)
    layers: Sequence[str] = ()
    methods: Sequence[str] = tuple(METHODS)

    def label(self, index: int) -> str:
        return self.labels.get(index, str(index))

    def class_index(self, name: str, value: Any) -> int:
        """An index or a label as an index. Raises Refusal 400."""
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise Refusal(400, f"{name} must be a class index or label")
        text = str(value).strip()
        if isinstance(value, int) or re.fullmatch(r"-?[0-9]{1,9}", text):
            index = int(text)
            if 0 <= index < self.classes:
                return index
            raise Refusal(400, f"{name} is out of range: class indices go from 0 to {self.classes - 1}")
        found = [index for index, label in self.labels.items() if label == text]
        found = found or [index for index, label in self.labels.items() if label.casefold() == text.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            raise Refusal(400, f"{name}: several classes have this label; use an index: {', '.join(map(str, found))}")
        raise Refusal(400, f"{name}: no class has this label; send an index or one of the model's labels")


def unknown(name: object) -> Refusal:
    return Refusal(400, f"unknown option {printable(name)!r}; allowed: {', '.join(OPTIONS)}")


def parse(name: str, value: Any, vocabulary: Vocabulary) -> Any:
    """One option's value as its type. Takes JSON values and their text, raises Refusal 400."""
    option = OPTIONS.get(name)
    if option is None:
        raise unknown(name)
    if isinstance(value, (bytes, bytearray, str)):
        value = _text(option, value)
    if option.kind in ("class", "target"):
        return _target(option, value, vocabulary)
    if option.kind == "choice":
        choices = vocabulary.methods if name == "method" else option.choices
        return _choice(option, value, choices)
    if option.kind == "layer":
        return _choice(option, value, vocabulary.layers)
    if option.kind == "boolean":
        return _boolean(option, value)
    return _number(option, value)


def _text(option: Option, value: bytes | bytearray | str) -> str:
    if len(value) > _LONGEST:
        raise Refusal(400, f"{option.name} is longer than {_LONGEST} characters")
    try:
        return (value if isinstance(value, str) else bytes(value).decode("utf-8")).strip()
    except UnicodeDecodeError:
        raise _wrong(option) from None


def _wrong(option: Option, allowed: str | None = None) -> Refusal:
    return Refusal(
        400,
        f"{option.name} must be {'one of: ' if option.choices or allowed else ''}{allowed or option.allowed}",
    )


def _choice(option: Option, value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, str) and value in choices:
        return value
    if option.name == "method" and isinstance(value, str) and value in METHODS:
        raise Refusal(400, f"method {value} is not possible with this model; possible: {', '.join(choices)}")
    raise _wrong(option, ", ".join(choices) or "none, as this archive taps no layer")


def _boolean(option: Option, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise _wrong(option)


def _number(option: Option, value: Any) -> float | int:
    whole = option.kind == "integer"
    if isinstance(value, str):
        pattern = r"[+-]?\d{1,18}" if whole else r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?"
        if not re.fullmatch(pattern, value, re.ASCII):
            raise _wrong(option)
        value = int(value) if whole else float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (whole and value != value // 1):
        raise _wrong(option)
    assert option.low is not None and option.high is not None
    if not option.low <= value <= option.high:
        raise _wrong(option)
    return int(value) if whole else float(value)


def _target(option: Option, value: Any, vocabulary: Vocabulary) -> Any:
    if option.kind == "target" and isinstance(value, str):
        text = value.strip()
        if text == "predicted":
            return text
        ranked = re.fullmatch(r"top([0-9]{1,2})", text)
        if ranked:
            count = int(ranked.group(1))
            if 1 <= count <= min(MAX_TARGETS, vocabulary.classes):
                return f"top{count}"
            raise Refusal(400, f"target must be {option.allowed}")
    return vocabulary.class_index(option.name, value)
