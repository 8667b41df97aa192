"""The block `preprocess:` of an archive's settings. It says how a picture becomes the model's view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..imaging import INTERPOLATIONS, MODES, ORDERS, ORIENTATIONS, Preprocess
from .values import SettingsError, whole

#: Below the largest number of float32, with room for a network's first sums. A NaN is not below it.
_LARGEST = 1e30


def read_view(section: Mapping[str, Any], max_resized_pixels: int) -> Preprocess:
    """The preprocessing that the block asks for. Raises SettingsError."""
    allowed = [f.name for f in fields(Preprocess)]
    for key in section:
        if key not in allowed:
            raise SettingsError(f"preprocess.{key} is not a setting; allowed: {', '.join(allowed)}")
    values = dict(section)
    for key in ("resize", "crop"):
        if values.get(key) is not None:
            values[key] = _size(f"preprocess.{key}", values[key])
    if isinstance(values.get("resize"), tuple):
        values.setdefault("crop", None)
    _check_words(values)
    channels = values.setdefault("channels", Preprocess.channels)
    for key in ("mean", "std"):
        numbers = values.get(key, getattr(Preprocess, key))
        values[key] = _numbers(f"preprocess.{key}", numbers, channels, positive=key == "std")
    _check_padding(values)
    preprocess = Preprocess(**values)
    if preprocess.view is None:
        raise SettingsError(
            "preprocess.crop is null; a batch needs images of one size: set crop, or resize to [height, width]"
        )
    for mean, std in zip(preprocess.mean, preprocess.std):
        if not (1 + abs(mean)) / std < _LARGEST:
            raise SettingsError(
                f"preprocess.mean {list(preprocess.mean)} and preprocess.std {list(preprocess.std)} make values that "
                "float32 cannot hold; smaller means and larger deviations are allowed"
            )
    _refuse_too_large(preprocess, max_resized_pixels)
    return preprocess


def _check_words(values: Mapping[str, Any]) -> None:
    choices = {
        "interpolation": tuple(INTERPOLATIONS),
        "orientation": ORIENTATIONS,
        "channels": tuple(MODES),
        "order": ORDERS,
        "letterbox": (True, False),
    }
    for key, words in choices.items():
        # 1 and true are equal in Python, and a text is no number.
        if key in values and not any(values[key] is word or _same(values[key], word) for word in words):
            names = ", ".join(str(word).lower() for word in words)
            raise SettingsError(f"preprocess.{key} is {values[key]!r}; allowed: {names}")
    if values.get("order", "rgb") != "rgb" and values.get("channels", 3) != 3:
        raise SettingsError("preprocess.order: bgr needs 3 channels; remove it")


def _same(value: Any, word: Any) -> bool:
    return type(value) is type(word) and bool(value == word)


def _check_padding(values: dict[str, Any]) -> None:
    """Checks `letterbox` and `fill`, which becomes one number for each channel."""
    if values.get("letterbox") and not isinstance(values.get("resize"), tuple):
        raise SettingsError(
            "preprocess.letterbox: true needs preprocess.resize as [height, width], the size that is filled"
        )
    fill = values.get("fill")
    if fill is None:
        return
    if not values.get("letterbox"):
        raise SettingsError("preprocess.fill is the colour around a letterboxed picture; add letterbox: true")
    channels = values["channels"]
    levels = list(fill) if isinstance(fill, (list, tuple)) else [fill] * channels
    fine = all(isinstance(level, int) and not isinstance(level, bool) and 0 <= level <= 255 for level in levels)
    if len(levels) != channels or not fine:
        raise SettingsError(
            f"preprocess.fill is {fill!r}; a whole number from 0 to 255 is allowed, or a list of {channels}"
        )
    values["fill"] = tuple(levels)


def _refuse_too_large(preprocess: Preprocess, max_resized_pixels: int) -> None:
    """Refuses a view that has more pixels than any picture may have after resizing: nothing could be served."""
    for name, size in (("crop", preprocess.crop), ("resize", preprocess.resize)):
        if size is None:
            continue
        height, width = (size, size) if isinstance(size, int) else size
        if height * width > max_resized_pixels:
            raise SettingsError(
                f"preprocess.{name} is {list(size) if isinstance(size, tuple) else size}, which makes "
                f"{height * width} pixels of every picture; "
                f"at most max_resized_pixels = {max_resized_pixels} are allowed"
            )


def _size(name: str, value: Any) -> int | tuple[int, int]:
    """A side, or the height and width of a list of two."""
    if not isinstance(value, (list, tuple)):
        return whole(name, value)
    if len(value) != 2:
        raise SettingsError(f"{name} is {value!r}; a whole number or [height, width] is allowed")
    return whole(name, value[0]), whole(name, value[1])


_WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}


def _numbers(name: str, value: Any, count: int, positive: bool) -> tuple[float, ...]:
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    fine = all(isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < _LARGEST for n in numbers)
    if len(numbers) != count or not fine or (positive and min(numbers) <= 0):
        raise SettingsError(
            f"{name} is {value!r}; {_WORDS[count]} {'positive ' if positive else ''}"
            f"number{'s are' if count > 1 else ' is'} allowed, one for each of preprocess.channels"
        )
    return tuple(float(number) for number in numbers)
