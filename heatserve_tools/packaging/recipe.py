"""The recipe of an archive: all that it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """All that an archive is made from.

    weights: None for those that the architecture makes by itself; such an archive can be inspected, not packaged.
    extensions: modules that register methods when the archive starts.
    layers: in place of the layers that the configuration names.
    activation: the function that makes answers of the scores; None where the configuration or the architecture says it.
    handlers: a folder with the handler and the package heatserve; None for those of this installation.
    """

    name: str
    architecture: str
    weights: Path | None
    labels: Path | None = None
    config: Path | None = None
    include_packages: tuple[str, ...] = ()
    version: str = "1.0"
    continuous: bool = False
    extensions: tuple[Path, ...] = ()
    layers: tuple[str, ...] = ()
    activation: str | None = None
    handlers: Path | None = None
