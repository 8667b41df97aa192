"""The meaning of a request's words for one archive: its classes, labels, layers and methods."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine import METHODS
from .errors import Refusal, printable
from .options import MAX_NEAREST, MAX_TARGETS, OPTIONS, Option

#: Characters of an option's value.
_LONGEST = 500
_WORDS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True)
class Vocabulary:
    """The words of one archive.

    classes: how many classes the network has.
    labels: by class index; empty for an archive without labels.
    layers: the layers that the archive taps.
    methods: the methods that are possible with its network.
    activation: the function that makes answers of the scores.
    single: whether the classes are one label's absence and its presence.
    """

    classes: int
    labels: Mapping[int, str] = field(default_factory=dict)
    layers: Sequence[str] = ()
    methods: Sequence[str] = field(default_factory=lambda: tuple(METHODS))
    activation: str = "softmax"
    single: bool = False

    def label(self, index: int) -> str:
        """The label of a class; its index as text for a class without one."""
        return self.labels.get(index, str(index))

    def class_index(self, name: str, value: Any) -> int:
        """The class index of an index or a label. Raises Refusal 400."""
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
    """The refusal of a name that no option has."""
    return Refusal(400, f"unknown option {printable(name)!r}; allowed: {', '.join(OPTIONS)}")


def parse(name: str, value: Any, vocabulary: Vocabulary) -> Any:
    """The value of one option as its type, from a JSON value or its text. Raises Refusal 400."""
    option = OPTIONS.get(name)
    if option is None:
        raise unknown(name)
    if isinstance(value, (bytes, bytearray, str)):
        value = _text(option, value)
    if option.kind == "target":
        return _target(option, value, vocabulary)
    if option.kind == "contrast":
        return _contrast(option, value, vocabulary)
    if option.kind == "choice":
        choices = vocabulary.methods if name == "method" else option.choices
        return _choice(option, value, choices)
    if option.kind == "layer":
        return _layer(option, value, vocabulary.layers)
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
    """The refusal of a value that the option does not allow."""
    return Refusal(
        400,
        f"{option.name} must be {'one of: ' if option.choices or allowed else ''}{allowed or option.allowed}",
    )


def _choice(option: Option, value: Any, choices: Collection[str]) -> str:
    if isinstance(value, str) and value in choices:
        return value
    if option.name == "method" and isinstance(value, str) and value in METHODS:
        raise Refusal(400, f"method {value} is not possible with this model; possible: {', '.join(choices)}")
    raise _wrong(option, ", ".join(choices) or "none, as this archive taps no layer")


def _boolean(option: Option, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
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
    if not option.low <= value <= option.high:
        raise _wrong(option)
    return int(value) if whole else float(value)


def _layer(option: Option, value: Any, layers: Collection[str]) -> str:
    """A layer, or several joined by "+", whose maps are fused."""
    if not isinstance(value, str):
        return _choice(option, value, layers)
    names = value.split("+")
    if len(set(names)) < len(names):
        raise Refusal(400, f"{option.name} names a layer twice")
    return "+".join(_choice(option, name, layers) for name in names)


def _target(option: Option, value: Any, vocabulary: Vocabulary) -> Any:
    """A class index, or a word whose classes the picture decides."""
    if value == "predicted":
        return value
    if value == "present":
        if vocabulary.activation != "sigmoid":
            raise Refusal(
                400,
                "target present belongs to labels of which several may be present (explain: {activation: sigmoid}); "
                f"this archive has {vocabulary.activation}: ask for predicted, or top1 to top{MAX_TARGETS}",
            )
        return value
    return _counted(option, "top", value, min(MAX_TARGETS, vocabulary.classes)) or vocabulary.class_index(
        option.name, value
    )


def _contrast(option: Option, value: Any, vocabulary: Vocabulary) -> Any:
    """A class index, or the number of nearest classes as a word."""
    return _counted(option, "nearest", value, min(MAX_NEAREST, vocabulary.classes - 1)) or vocabulary.class_index(
        option.name, value
    )


def _counted(option: Option, word: str, value: Any, most: int) -> str | None:
    """The word with its number, without zeros before it; None for another value. Raises Refusal for a wrong number."""
    found = re.fullmatch(f"{word}([0-9]{{1,2}})", value) if isinstance(value, str) else None
    if found is None:
        return None
    count = int(found.group(1))
    if 1 <= count <= most:
        return f"{word}{count}"
    if most:
        raise Refusal(400, f"{option.name} must be {option.allowed}; with this model up to {word}{most}")
    raise Refusal(400, f"{option.name}: the model has no other class to be near")
