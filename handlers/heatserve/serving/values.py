"""Checks of values that several settings share."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any


class SettingsError(ValueError):
    """A setting that is not allowed. The message names the key, the value and the allowed values."""


def whole(name: str, value: Any) -> int:
    """A whole number of at least 1. Raises SettingsError."""
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,15}", text) or int(text) < 1:
        raise SettingsError(f"{name} is {value!r}; a whole number of at least 1 is allowed")
    return int(text)


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A block of settings; empty where there is none. Raises SettingsError for one that is no mapping."""
    section = config.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise SettingsError(f"{name} must be a block of keys, not {type(section).__name__}")
    return section


def one_of(explain: Mapping[str, Any], name: str, allowed: Collection[str], default: str) -> str:
    """The value of a key that allows some names. Raises SettingsError."""
    value = explain.get(name, default)
    if not isinstance(value, str) or value not in allowed:
        raise SettingsError(f"explain.{name} is {value!r}; allowed: {', '.join(allowed)}")
    return value
