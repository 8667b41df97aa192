"""From weights and an architecture to an archive that TorchServe loads, tried before it is put in place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatserve.serving.integrity import LABELS, MANIFEST
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import (
    activation,
    architecture,
    labels,
    mar,
    names,
    program,
    root,
    servable,
    state_dict,
    trial,
)
from heatserve_tools.packaging.architecture import Architecture
from heatserve_tools.packaging.configuration import CONFIG, configuration, settled
from heatserve_tools.packaging.mar import Content
from heatserve_tools.packaging.recipe import Recipe as Recipe
from heatserve_tools.packaging.state_dict import Weights
from heatserve_tools.packaging.trial import Trial

ARCHIVER_VERSION = "0.12.0"


@dataclass(frozen=True)
class Made:
    """The members of an archive by name, the manifest last, and remarks on the way in which they were made."""

    members: dict[str, Content]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Packaged:
    """An archive in its place.

    unmet: packages that it imports and that not every server has.
    activation: the function that makes answers of its scores.
    remarks: on the way in which it was made, each half a sentence.
    """

    path: Path
    weights_sha256: str
    contents_sha256: str
    trial: Trial
    unmet: tuple[str, ...]
    activation: str = "softmax"
    remarks: tuple[str, ...] = ()


def package(recipe: Recipe, export_path: Path, force: bool = False) -> Packaged:
    """Builds and tries `export_path/NAME.mar`. Raises ToolError where it cannot, and then leaves nothing."""
    if not servable.NAME.fullmatch(recipe.name):
        raise ToolError(f"The name {recipe.name!r} may have letters, digits, '-', '_' and '.' only.")
    target = export_path / f"{recipe.name}.mar"
    if target.exists() and not force:
        raise ToolError(f"{target} exists; --force replaces it.")
    named = settled(recipe)
    if named is None:
        raise ToolError(activation.UNSETTLED)
    made = make(recipe)
    contents = made.members
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
    ours = root.archive_root(recipe.handlers)
    theirs = {name: content for name, content in contents.items() if name not in ours}
    unmet = tuple(architecture.unmet_imports(theirs, tried.modules))
    return Packaged(target, about["weights_sha256"], about["contents_sha256"], tried, unmet, named, made.remarks)


def members(recipe: Recipe) -> dict[str, Content]:
    """All members of the archive by name, the manifest last. Raises ToolError."""
    return make(recipe).members


def make(recipe: Recipe) -> Made:
    """The members of the archive, and remarks. Raises ToolError."""
    ours = root.archive_root(recipe.handlers)
    model = Architecture("") if recipe.architecture is None else architecture.read(recipe.architecture)
    remarks = [*recipe.remarks]
    parts: list[Mapping[str, Content]] = [ours, model.members, recipe.carried]
    parts += [architecture.package_members(name) for name in recipe.include_packages if name != model.package]
    entry: dict[str, Any] = {"modelName": recipe.name}
    if recipe.weights is not None:
        weights = _weights(recipe, model, parts[1:])
        entry["serializedFile"] = weights.name
        parts.append({weights.name: weights.content})
        remarks += weights.remarks
    entry["handler"] = root.HANDLER
    if model.model_file:
        entry["modelFile"] = model.model_file
    entry["modelVersion"] = recipe.version
    for path in recipe.extensions:
        architecture.module_file(path, "extension")
        parts.append({path.name: path})
    if recipe.labels:
        named = labels.read(recipe.labels)
        parts.append({LABELS: (json.dumps(named, ensure_ascii=False, indent=1) + "\n").encode()})
    config = configuration(recipe)
    if config is not None:
        entry["configFile"] = CONFIG
        parts.append({CONFIG: config})
    merged = _merged(parts)
    contract = root.contract(ours)
    manifest = {
        # A fixed date, as everywhere in the archive: TorchServe asks for one and does nothing with it.
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": entry,
        "archiverVersion": ARCHIVER_VERSION,
        "heatserve": {
            "version": root.version(ours),
            **({} if contract is None else {"contract": contract}),
            **({"architecture": model.reference} if model.reference else {}),
            **({} if recipe.weights is None else {"weights_sha256": mar.sha256(recipe.given or recipe.weights)}),
        },
    }
    return Made({**merged, MANIFEST: mar.sealed(manifest, merged)}, tuple(remarks))


def _weights(recipe: Recipe, model: Architecture, parts: Iterable[Mapping[str, Content]]) -> Weights:
    """The weights of the archive. parts: the files that the network's code needs."""
    assert recipe.weights is not None
    if not model.reference:
        return program.for_archive(recipe.weights)
    return state_dict.for_archive(recipe.weights, recipe.choice, lambda: names.of(model.reference, _merged(parts)))


def _merged(parts: Iterable[Mapping[str, Content]]) -> dict[str, Content]:
    """The members of all parts. Raises ToolError where two have one name."""
    merged: dict[str, Content] = {}
    for part in parts:
        clash = sorted(merged.keys() & part.keys())
        if clash:
            raise ToolError(f"Two files of the archive would be called {clash[0]}: rename yours.")
        merged.update(part)
    # Python would import the package, and the file would be left unread.
    packages = {name.split("/")[0] for name in merged if "/" in name}
    hidden = sorted(name for name in merged if name.endswith(".py") and name[: -len(".py")] in packages)
    if hidden:
        raise ToolError(f"The archive would have a file {hidden[0]} beside a package of that name: rename yours.")
    return merged
