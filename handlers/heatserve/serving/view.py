"""The block `preprocess:` of an archive's settings. It says how a picture becomes the model's view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..imaging import INTERPOLATIONS, ORIENTATIONS, Preprocess
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
            values[key] = whole(f"preprocess.{key}", values[key])
    for key in ("mean", "std"):
        if key in values:
            values[key] = _channels(f"preprocess.{key}", values[key], positive=key == "std")
    for key, choices in (("interpolation", tuple(INTERPOLATIONS)), ("orientation", ORIENTATIONS)):
        if key in values and values[key] not in choices:
            raise SettingsError(f"preprocess.{key} is {values[key]!r}; allowed: {', '.join(choices)}")
    if values.get("crop", Preprocess().crop) is None:
        raise SettingsError("preprocess.crop is null; a whole number is allowed: a batch needs images of one size")
    preprocess = Preprocess(**values)
    for mean, std in zip(preprocess.mean, preprocess.std):
        if not (1 + abs(mean)) / std < _LARGEST:
            raise SettingsError(
                f"preprocess.mean {list(preprocess.mean)} and preprocess.std {list(preprocess.std)} make values that "
                "float32 cannot hold; smaller means and larger deviations are allowed"
            )
    _refuse_too_large(preprocess, max_resized_pixels)
    return preprocess


def _refuse_too_large(preprocess: Preprocess, max_resized_pixels: int) -> None:
    """Refuses a view that has more pixels than any picture may have after resizing: nothing could be served."""
    for name, side in (("crop", preprocess.crop), ("resize", preprocess.resize)):
        if isinstance(side, int) and side * side > max_resized_pixels:
            raise SettingsError(
                f"preprocess.{name} is {side}, which makes {side * side} pixels of every picture; "
                f"at most max_resized_pixels = {max_resized_pixels} are allowed"
            )


def _channels(name: str, value: Any, positive: bool) -> tuple[float, float, float]:
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    fine = all(isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < _LARGEST for n in numbers)
    if len(numbers) != 3 or not fine or (positive and min(numbers) <= 0):
        raise SettingsError(f"{name} is {value!r}; three {'positive ' if positive else ''}numbers are allowed")
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))
