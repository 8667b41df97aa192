"""Checks of values that several settings share."""

from __future__ import annotations

import re
from typing import Any


class SettingsError(ValueError):
    """A setting that is not allowed. The message names the key, the value and the allowed values."""


def whole(name: str, value: Any) -> int:
    """A whole number of at least 1. Raises SettingsError."""
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,15}", text) or int(text) < 1:
        raise SettingsError(f"{name} is {value!r}; a whole number of at least 1 is allowed")
    return int(text)
