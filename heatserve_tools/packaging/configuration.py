"""The configuration of an archive, `model-config.yaml`: the user's file, with the settings that the packager adds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import activation, servable
from heatserve_tools.packaging.recipe import Recipe

CONFIG = "model-config.yaml"
#: The settings with which TorchServe hands rows over step by step: one worker, room for later rows, no waiting.
CONTINUOUS = {"minWorkers": 1, "maxWorkers": 1, "continuousBatching": True, "batchSize": 64, "maxBatchDelay": 1}


def configuration(recipe: Recipe) -> bytes | None:
    """The archive's configuration: the recipe's file as it is, unless the recipe changes settings in it.

    None where there is neither. Raises ToolError for a file that TorchServe cannot read.
    """
    content = recipe.config.read_bytes() if recipe.config else None
    read = read_file(recipe.config)
    changed: dict[str, Any] = {**CONTINUOUS} if recipe.continuous else {}
    explain = _block(read, "explain")
    different = {key: value for key, value in _explain(recipe, explain).items() if explain.get(key) != value}
    if different:
        changed["explain"] = {**explain, **different}
    return yaml.safe_dump({**read, **changed}, sort_keys=False).encode() if changed else content


def settled(recipe: Recipe) -> str | None:
    """The activation of the recipe, if the user, the configuration or the architecture settles it. Raises ToolError."""
    return activation.of(recipe.activation, recipe.architecture, _block(read_file(recipe.config), "explain"))


def read_file(path: Path | None) -> dict[str, Any]:
    """The settings of a file; none without a file. Raises ToolError for one that TorchServe cannot read."""
    if path is None:
        return {}
    try:
        return servable.config(path.read_bytes())
    except servable.Unservable as error:
        raise ToolError(f"The configuration {path.name} {error}.") from None


def completed(own: Path | None, settings: Mapping[str, Any], scratch: Path) -> Path | None:
    """A file with these settings and, over them, those of the user's file; None where there are none.

    scratch: the folder of that file.
    """
    if not settings:
        return own
    path = scratch / CONFIG
    path.write_text(yaml.safe_dump({**settings, **read_file(own)}, sort_keys=False), encoding="utf-8")
    return path


def _block(read: Mapping[str, Any], name: str) -> dict[str, Any]:
    block = read.get(name) or {}
    if not isinstance(block, dict):
        raise ToolError(f"The configuration's block {name} is no mapping of settings.")
    return block


def _explain(recipe: Recipe, explain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the block `explain` that the recipe makes."""
    made: dict[str, Any] = {}
    named = settled(recipe)
    if named is not None:
        made["activation"] = named
    if recipe.architecture is None and "method" not in explain:
        made["method"] = "gradient"  # a whole network in a file has no layers
    if recipe.layers:
        made["layer"] = list(recipe.layers)
    if recipe.extensions:
        before = explain.get("extensions") or []
        modules = [*(before if isinstance(before, list) else [before]), *(path.stem for path in recipe.extensions)]
        made["extensions"] = [module for number, module in enumerate(modules) if module not in modules[:number]]
    return made
