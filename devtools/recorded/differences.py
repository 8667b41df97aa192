"""The differences of two recordings, in lines that a person can read."""

from __future__ import annotations

import base64
import fnmatch
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
import numpy as np
from PIL import Image

_LONGEST = 160
_LINES = 8
#: Members of answers that differ from run to run, or between two archives of the same network.
_OF_ONE_RUN = ("timing_ms", "contents_sha256", "chunk")
#: Levels of 255 by which pictures may differ within rounding: of grey, and of colours, which change faster.
_GREY, _COLOUR = 1, 8


def report(old: Mapping[str, Any], new: Mapping[str, Any], only: str, most: int, tolerance: float = 0.0) -> int:
    """Prints the number of equal cases and the differences of the others; 1 where there are any, else 0.

    tolerance: see `between`.
    """
    names = [name for name in dict.fromkeys([*old, *new]) if fnmatch.fnmatchcase(name, only)]
    different = 0
    for name in names:
        if name not in old or name not in new:
            lines = [f"is only in the {'old' if name in old else 'new'} recording"]
        else:
            lines = [*between(old[name], new[name], tolerance)]
        if lines:
            different += 1
            if different <= most:
                click.echo(f"{name}")
                for line in lines[:_LINES]:
                    click.echo(f"    {line}")
                if len(lines) > _LINES:
                    click.echo(f"    and {len(lines) - _LINES} more")
    if different > most:
        click.echo(f"and {different - most} more cases")
    click.echo(f"{len(names) - different} of {len(names)} cases are equal")
    return 1 if different else 0


def between(old: Any, new: Any, tolerance: float = 0.0, path: str = "") -> Iterator[str]:
    """A line for each difference.

    tolerance: 0 demands equal bytes. Else arrays and numbers may differ by that share of the largest value, and
    pictures by the rounding of a grey level. Members that tell of one run or one archive are left out.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if "sha256" in old and "sha256" in new:
            yield from _bodies(old, new, tolerance, path)
            return
        for key in dict.fromkeys([*old, *new]):
            inner = f"{path}.{key}" if path else str(key)
            if key not in old or key not in new:
                yield f"{inner}: {_told(old[key]) if key in old else 'absent'} -> {_told(new.get(key, 'absent'))}"
            elif not (tolerance and key in _OF_ONE_RUN):
                yield from between(old[key], new[key], tolerance, inner)
    elif tolerance and _are_numbers(old) and _are_numbers(new) and len(old) == len(new):
        yield from _arrays(np.asarray(old, float), np.asarray(new, float), tolerance, path)
    elif _is_list(old) and _is_list(new) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new)):
            yield from between(one, other, tolerance, f"{path}[{index}]")
    elif tolerance and _is_document(old) and _is_document(new):
        yield from between(json.loads(old), json.loads(new), tolerance, f"{path}{{}}")
    elif not _same(old, new, tolerance):
        yield f"{path}: {_pictured(old, new) or f'{_told(old)} -> {_told(new)}'}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_document(value: Any) -> bool:
    """Whether it is the text of a JSON object, as tensors of KServe's second protocol hold them."""
    return isinstance(value, str) and value.startswith("{") and _parsed(value) is not None


def _are_numbers(value: Any) -> bool:
    """Whether it is a map as a list of numbers."""
    return isinstance(value, list) and len(value) > 100 and all(isinstance(each, (int, float)) for each in value)


def _arrays(old: Any, new: Any, tolerance: float, path: str) -> Iterator[str]:
    apart = float(np.abs(old - new).max()) / (float(np.abs(old).max()) or 1.0)
    if not apart <= tolerance or not tolerance:
        yield f"{path}: maps of {old.shape} differ by {apart:.3g} of the largest value"


def _same(old: Any, new: Any, tolerance: float) -> bool:
    if type(old) is type(new) and old == new:
        return True
    if not tolerance:
        return False
    first, second = _number(old), _number(new)
    if first is not None and second is not None:
        return math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)
    one, other = _picture(old), _picture(new)
    if one is None or other is None or one.shape != other.shape:
        return False
    grey = all(bool((each[..., 0] == each[..., 1]).all()) for each in (one, other))
    return _apart(one, other) <= (_GREY if grey else _COLOUR)


def _number(value: Any) -> float | None:
    """A number, or the text of one in a header."""
    try:
        return None if isinstance(value, bool) or not isinstance(value, (int, float, str)) else float(value)
    except ValueError:
        return None


def _bodies(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float, path: str) -> Iterator[str]:
    if old["sha256"] == new["sha256"]:
        return
    if "text" in old and "text" in new:
        found = [_parsed(old["text"]), _parsed(new["text"])]
        if found[0] is not None and found[1] is not None:
            lines = [*between(found[0], found[1], tolerance, f"{path}{{}}")]
            yield from lines
            if not lines and not tolerance:
                yield f"{path}: equal as JSON, but written differently: {_told(old['text'])} -> {_told(new['text'])}"
            return
        yield f"{path}: {_told(old['text'])} -> {_told(new['text'])}"
        return
    before, after = _array(old), _array(new)
    if before is not None and after is not None and before.shape == after.shape:
        yield from _arrays(before, after, tolerance, path)
        return
    one, other = (_in_base64(each) for each in (old, new))
    if not (tolerance and _same(one, other, tolerance)):
        yield f"{path}: {_pictured(one, other) or f'{len(one)} -> {len(other)} other characters of base64'}"


def _in_base64(body: Mapping[str, Any]) -> str:
    if "base64" in body:
        return str(body["base64"])
    return base64.b64encode(body["text"].encode("ascii")).decode("ascii")


def _parsed(text: str) -> Any:
    """JSON, or lines of JSON; None for other text."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return None


def _array(body: Mapping[str, Any]) -> Any:
    try:
        return np.load(io.BytesIO(base64.b64decode(body["base64"])), allow_pickle=False).astype(np.float64)
    except (KeyError, ValueError, OSError, EOFError):
        return None


def _picture(text: Any) -> Any:
    """Pixels of a picture in base64; None for anything else."""
    if not isinstance(text, str) or len(text) < 80:
        return None
    try:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))).convert("RGBA"), int)
    except (ValueError, OSError):
        return None


def _apart(one: Any, other: Any) -> int:
    return int(np.abs(one - other).max())


def _pictured(old: Any, new: Any) -> str:
    """How two pictures differ; empty where they are none."""
    one, other = _picture(old), _picture(new)
    if one is None or other is None:
        return ""
    if one.shape != other.shape:
        return f"a picture of {one.shape[1]} x {one.shape[0]} -> {other.shape[1]} x {other.shape[0]}"
    changed = int((one != other).any(-1).sum())
    return f"{changed} of {one.shape[0] * one.shape[1]} pixels differ, by at most {_apart(one, other)} of 255"


def _told(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
