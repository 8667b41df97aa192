"""The part of Java's .properties format that TorchServe's configuration uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """The settings of a file, in its order, without comments and empty lines."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith(("#", "!")))
    return {key.strip(): value.strip() for key, _, value in pairs}


def write(path: Path, settings: Mapping[str, str]) -> None:
    """Writes settings so that Java reads them back: backslashes doubled, line ends joined."""
    lines = (f"{key}={_escape(str(value))}\n" for key, value in settings.items())
    path.write_text("".join(lines), encoding="utf-8")


def _escape(value: str) -> str:
    return " ".join(value.replace("\\", "\\\\").split("\n"))
