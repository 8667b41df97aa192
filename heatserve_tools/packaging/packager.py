"""From weights and an architecture to an archive that TorchServe loads, proved before it is put in place."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heatserve.serving.integrity import LABELS, MANIFEST
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import architecture, labels, mar, servable, state_dict, trial
from heatserve_tools.packaging.mar import Content
from heatserve_tools.packaging.trial import Trial
from heatserve_tools.paths import HANDLERS

HANDLER = "explain_handler.py"
CONFIG = "model-config.yaml"
ARCHIVER_VERSION = "0.12.0"
#: What TorchServe needs to hand rows over step by step: one worker, room for who comes, no waiting for more.
CONTINUOUS = {"minWorkers": 1, "maxWorkers": 1, "continuousBatching": True, "batchSize": 64, "maxBatchDelay": 1}


@dataclass(frozen=True)
class Recipe:
    """All that an archive is made from."""

    name: str
    architecture: str
    weights: Path
    labels: Path | None = None
    config: Path | None = None
    include_packages: tuple[str, ...] = ()
    version: str = "1.0"
    continuous: bool = False
    handlers: Path = HANDLERS


@dataclass(frozen=True)
class Packaged:
    """An archive in its place. `unmet` are packages that it imports and that not every server has."""

    path: Path
    weights_sha256: str
    contents_sha256: str
    trial: Trial
    unmet: tuple[str, ...]


def package(recipe: Recipe, export_path: Path, force: bool = False) -> Packaged:
    """Builds and proves `export_path/NAME.mar`; ToolError where it cannot, and then nothing is left."""
    if not servable.NAME.fullmatch(recipe.name):
        raise ToolError(f"The name {recipe.name!r} may have letters, digits, '-', '_' and '.' only.")
    target = export_path / f"{recipe.name}.mar"
    if target.exists() and not force:
        raise ToolError(f"{target} exists; --force replaces it.")
    contents = members(recipe)
    about = json.loads(bytes(contents[MANIFEST]))["heatserve"]
    sources = [path for path in (recipe.weights, recipe.labels, recipe.config) if path]
    sources += [content for content in contents.values() if isinstance(content, Path)]
    export_path.mkdir(parents=True, exist_ok=True)
    unfinished = mar.temporary(target)
    try:
        mar.write(unfinished, contents)
        tried = trial.run(unfinished, recipe.name, sources)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    ours = _handlers(recipe.handlers)
    theirs = {name: content for name, content in contents.items() if name not in ours}
    unmet = tuple(architecture.unmet_imports(theirs))
    return Packaged(target, about["weights_sha256"], about["contents_sha256"], tried, unmet)


def members(recipe: Recipe) -> dict[str, Content]:
    """All members of the archive by name, the manifest last."""
    model = architecture.read(recipe.architecture)
    weights_name, weights_content = state_dict.for_archive(recipe.weights)
    parts: list[Mapping[str, Content]] = [
        _handlers(recipe.handlers),
        model.members,
        {weights_name: weights_content},
    ]
    parts += [architecture.package_members(name) for name in recipe.include_packages if name != model.package]
    if recipe.labels:
        named = labels.read(recipe.labels)
        parts.append({LABELS: (json.dumps(named, ensure_ascii=False, indent=1) + "\n").encode()})
    config = _config(recipe.config, recipe.continuous)
    if config is not None:
        parts.append({CONFIG: config})
    merged: dict[str, Content] = {}
    for part in parts:
        clash = sorted(merged.keys() & part.keys())
        if clash:
            raise ToolError(f"Two files of the archive would be called {clash[0]}: rename yours.")
        merged.update(part)
    entry: dict[str, Any] = {"modelName": recipe.name, "serializedFile": weights_name, "handler": HANDLER}
    if model.model_file:
        entry["modelFile"] = model.model_file
    entry["modelVersion"] = recipe.version
    if config is not None:
        entry["configFile"] = CONFIG
    manifest = {
        # A fixed date, as everywhere in the archive: TorchServe asks for one and does nothing with it.
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": entry,
        "archiverVersion": ARCHIVER_VERSION,
        "heatserve": {
            "version": heatserve_version(recipe.handlers),
            "architecture": model.reference,
            "weights_sha256": mar.sha256(recipe.weights),
        },
    }
    return {**merged, MANIFEST: mar.sealed(manifest, merged)}


def heatserve_version(handlers: Path = HANDLERS) -> str:
    """The version as `handlers/heatserve/__init__.py` says it, read without importing torch."""
    tree = ast.parse((handlers / "heatserve" / "__init__.py").read_bytes())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise ToolError("handlers/heatserve/__init__.py does not say __version__.")


def _handlers(folder: Path) -> dict[str, Content]:
    if not (folder / HANDLER).is_file():
        raise ToolError(f"handlers/{HANDLER} is missing from the repository.")
    return {path.relative_to(folder).as_posix(): path for path in architecture.source_files(folder)}


def _config(path: Path | None, continuous: bool) -> bytes | None:
    """The archive's configuration: the file as it is, with `CONTINUOUS` in place of what it says of workers and
    batches where that is asked for."""
    if path is None:
        return yaml.safe_dump(CONTINUOUS, sort_keys=False).encode() if continuous else None
    content = path.read_bytes()
    try:
        read = servable.config(content)
    except servable.Unservable as error:
        raise ToolError(f"The configuration {path.name} {error}.") from None
    return yaml.safe_dump({**read, **CONTINUOUS}, sort_keys=False).encode() if continuous else content
