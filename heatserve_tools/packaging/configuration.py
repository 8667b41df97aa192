"""The configuration of an archive, `model-config.yaml`: the user's file, with the settings that the packager adds."""

from __future__ import annotations

from collections.abc import Mapping
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
    read = _read(recipe)
    changed: dict[str, Any] = {**CONTINUOUS} if recipe.continuous else {}
    explain = _block(read, "explain")
    different = {key: value for key, value in _explain(recipe, explain).items() if explain.get(key) != value}
    if different:
        changed["explain"] = {**explain, **different}
    return yaml.safe_dump({**read, **changed}, sort_keys=False).encode() if changed else content


def settled(recipe: Recipe) -> str | None:
    """The activation of the recipe, if the user, the configuration or the architecture settles it. Raises ToolError."""
    return activation.of(recipe.activation, recipe.architecture, _block(_read(recipe), "explain"))


def _read(recipe: Recipe) -> dict[str, Any]:
    """The settings of the recipe's file; none without a file."""
    if recipe.config is None:
        return {}
    try:
        return servable.config(recipe.config.read_bytes())
    except servable.Unservable as error:
        raise ToolError(f"The configuration {recipe.config.name} {error}.") from None


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
    if recipe.layers:
        made["layer"] = list(recipe.layers)
    if recipe.extensions:
        before = explain.get("extensions") or []
        modules = [*(before if isinstance(before, list) else [before]), *(path.stem for path in recipe.extensions)]
        made["extensions"] = [module for number, module in enumerate(modules) if module not in modules[:number]]
    return made
