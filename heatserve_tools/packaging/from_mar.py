"""An archive of torch-model-archiver, taken apart: the recipe of an archive with the same network and labels.

Its handler is left out. The recipe's remarks say what that handler did that ours does not.
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heatserve.serving.integrity import LABELS, MANIFEST
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging.configuration import completed, read_file
from heatserve_tools.packaging.recipe import Recipe

IMAGE_CLASSIFIER = "image_classifier"
#: Settings of TorchServe that our handler refuses, with the reason for a person who had them.
_DROPPED = {
    "pt2": "a compiled network has no layers to explain, so the network is served as it is",
    "handler": "they are for the old handler",
    "asyncCommunication": "one worker's death would take the model down",
}


def read(archive: Path, scratch: Path, recipe: Recipe) -> Recipe:
    """The recipe with the parts of an old archive, where it has none of its own. Raises ToolError.

    scratch: a folder that outlives the recipe's use. The archive is unpacked there.
    recipe: its labels, version, activation and configuration are the user's and win.
    """
    folder = scratch / "old"
    model = _unpacked(archive, folder)
    handler = str(model.get("handler", ""))
    stock, remarks = _handler(archive.name, folder, handler)
    weights = _member(archive.name, folder, model, "serializedFile")
    if weights is None:
        raise ToolError(f"{archive.name} has no file of weights (serializedFile), which its code may load by itself.")
    file = _member(archive.name, folder, model, "modelFile")
    architecture = None if file is None else f"{file}:{_only_class(archive.name, file)}"
    config, about = _config(archive.name, folder, model, recipe.config)
    if not stock and not (config and "preprocess" in config):
        raise ToolError(
            f"{archive.name} has a handler of its own, {handler}, whose preprocessing cannot be read: say the same in "
            "the block preprocess of a model-config.yaml (--config), and it is left out."
        )
    labels = folder / LABELS
    requirements = _member(archive.name, folder, model, "requirementsFile")
    if requirements is not None:
        listed = requirements.read_text(encoding="utf-8", errors="replace").split("\n")
        needed = ", ".join(line.strip() for line in listed if line.strip() and not line.lstrip().startswith("#"))
        remarks.append(
            f"{requirements.name} is left out: install on the server what the network needs of it ({needed})"
        )
    named = [weights, file, requirements, labels, folder / MANIFEST, *_handler_files(folder, handler)]
    if model.get("configFile"):
        named.append(folder / str(model["configFile"]))
    carried = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in named and "__pycache__" not in path.parts
    }
    if carried:
        remarks.append(f"extra files are carried along: {', '.join([*carried][:5])}")
    return replace(
        recipe,
        architecture=architecture,
        weights=weights,
        labels=recipe.labels or (labels if labels.is_file() else None),
        config=completed(None, config, scratch),
        version=recipe.version or str(model.get("modelVersion") or ""),
        activation=recipe.activation or _settled(stock, config),
        carried={**carried, **recipe.carried},
        remarks=(*recipe.remarks, *remarks, *about),
    )


def _settled(stock: bool, config: Mapping[str, Any]) -> str | None:
    """The activation of the stock image_classifier, unless the configuration names one."""
    explain = config.get("explain")
    named = isinstance(explain, dict) and "activation" in explain
    return "softmax" if stock and not named else None


def _unpacked(archive: Path, folder: Path) -> Mapping[str, Any]:
    """The manifest's block about the model. Raises ToolError."""
    try:
        with zipfile.ZipFile(archive) as members:
            damaged = members.testzip()
            if damaged:
                raise ToolError(f"{archive.name} is damaged: its member {damaged} does not match its checksum.")
            members.extractall(folder)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (zipfile.BadZipFile, EOFError):
        raise ToolError(f"{archive.name} is no zip file, or not a whole one.") from None
    except (ValueError, OSError):
        raise ToolError(f"{archive.name} has no readable {MANIFEST}.") from None
    model = manifest.get("model") if isinstance(manifest, dict) else None
    if not isinstance(model, dict):
        raise ToolError(f"{archive.name} has a {MANIFEST} that names no model.")
    if "heatserve" in manifest:
        raise ToolError(f"{archive.name} was made by heatserve package: serve it as it is.")
    return model


def _member(archive: str, folder: Path, model: Mapping[str, Any], key: str) -> Path | None:
    """The file that the manifest names; None where it names none. Raises ToolError where it is not there."""
    name = model.get(key)
    if not name:
        return None
    path = folder / str(name)
    if not path.is_file() or folder.resolve() not in path.resolve().parents:
        raise ToolError(f"{archive} names the file {name} ({key}), which is not in it.")
    return path


def _only_class(archive: str, file: Path) -> str:
    """The class that the old handler loaded: the only one that the model file defines. Raises ToolError."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ToolError(f"{archive} has a model file {file.name} that is not Python: {error}.") from None
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if len(classes) != 1:
        raise ToolError(
            f"{archive} has a model file {file.name} with {len(classes)} classes, and the stock handler takes one with "
            "exactly one: unpack the archive and name the network by --architecture."
        )
    return classes[0]


def _handler_files(folder: Path, handler: str) -> list[Path]:
    module = handler.partition(":")[0]
    return [folder / module, folder / f"{module}.py"]


def _handler(archive: str, folder: Path, handler: str) -> tuple[bool, list[str]]:
    """Whether the handler is image_classifier as it is, and remarks on what it did. Raises ToolError."""
    explanations = "captum's integrated gradients of /explanations are replaced by heatserve's maps, another JSON"
    if handler == IMAGE_CLASSIFIER:
        return True, [f"{archive} was served by image_classifier: its preprocessing is the default", explanations]
    files = [path for path in _handler_files(folder, handler) if path.is_file()]
    if not files:
        raise ToolError(
            f"{archive} has the handler {handler or '(none)'}, which is not the image classifier of TorchServe: only "
            "networks that classify pictures are served."
        )
    kept, topk = _unchanged(files[0])
    if kept:
        listed = f"; it listed {topk} classes, ours lists `top_k` of them, 5 by default" if topk else ""
        return True, [f"{files[0].name} is left out: it is image_classifier unchanged{listed}", explanations]
    return False, [
        f"{files[0].name} is left out: its preprocessing is now that of the block preprocess, and whatever else it did "
        "with requests and answers is not done",
        explanations,
    ]


def _unchanged(file: Path) -> tuple[bool, int | None]:
    """Whether a handler is a subclass of ImageClassifier that changes nothing but `topk`, and that number."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):
        return False, None
    rest = [node for node in body if not isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_text(node)]
    handler = rest[0] if len(rest) == 1 else None
    if not isinstance(handler, ast.ClassDef):
        return False, None
    bases = [ast.unparse(base).rpartition(".")[2] for base in handler.bases]
    topk = None
    for node in handler.body:
        if isinstance(node, ast.Pass) or _is_text(node):
            continue
        if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "topk"):
            return False, None
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, int):
            topk = node.value.value
    return bases == ["ImageClassifier"] and not handler.decorator_list, topk


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _config(archive: str, folder: Path, model: Mapping[str, Any], own: Path | None) -> tuple[dict[str, Any], list[str]]:
    """The settings of the old archive and, over them, those of the user's file; and remarks. Raises ToolError."""
    settings = read_file(_member(archive, folder, model, "configFile"))
    dropped = [key for key in _DROPPED if key in settings]
    remarks = [f"the settings {key} of {archive} are left out: {_DROPPED[key]}" for key in dropped]
    kept = {key: value for key, value in settings.items() if key not in dropped}
    return {**kept, **read_file(own)}, remarks
