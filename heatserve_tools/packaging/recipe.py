"""The recipe of an archive: all that it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from heatserve_tools.packaging.state_dict import Choice


@dataclass(frozen=True)
class Recipe:
    """All that an archive is made from.

    architecture: None where the file of the weights holds the whole network, by TorchScript or torch.export.
    weights: None for those that the architecture makes by itself; such an archive can be inspected, not packaged.
    extensions: modules that register methods when the archive starts.
    layers: in place of the layers that the configuration names.
    activation: the function that makes answers of the scores; None where the configuration or the architecture says it.
    choice: of one state dict in the file of the weights.
    given: the file that the weights were made from, for its hash; None where it is the weights' own.
    carried: further files of the archive, by their names in it.
    remarks: on the way in which the recipe was made, each half a sentence.
    handlers: a folder with the handler and the package heatserve; None for those of this installation.
    """

    name: str
    architecture: str | None
    weights: Path | None
    labels: Path | None = None
    config: Path | None = None
    include_packages: tuple[str, ...] = ()
    version: str = "1.0"
    continuous: bool = False
    extensions: tuple[Path, ...] = ()
    layers: tuple[str, ...] = ()
    activation: str | None = None
    choice: Choice = field(default_factory=Choice)
    given: Path | None = None
    carried: Mapping[str, Path] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    handlers: Path | None = None

    def with_version(self) -> Recipe:
        """The recipe with the usual version where it has none."""
        return self if self.version else replace(self, version=Recipe.version)
