"""What an archive holds beside the code: the network, its weights and its labels."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


class ArchiveError(ValueError):
    """The archive cannot be served; the message says why and what to do, in a sentence."""


@dataclass(frozen=True)
class ModelInfo:
    """What answers repeat of the archive they come from."""

    name: str
    version: str
    weights_sha256: str | None
    contents_sha256: str | None


def model_info(manifest: Mapping[str, Any]) -> ModelInfo:
    model, ours = manifest.get("model", {}), manifest.get("heatserve", {})
    return ModelInfo(
        str(model.get("modelName", "")),
        str(model.get("modelVersion", "")),
        ours.get("weights_sha256"),
        ours.get("contents_sha256"),
    )


def load_model(model_dir: Path, manifest: Mapping[str, Any], device: torch.device) -> nn.Module:
    """Builds the network that the manifest names and loads its weights, `weights_only`. Raises ArchiveError."""
    model_block = manifest.get("model", {})
    architecture = manifest.get("heatserve", {}).get("architecture")
    if architecture:
        build = _named(architecture)
    elif model_block.get("modelFile"):
        build = _only_class(model_block["modelFile"])
    else:
        raise ArchiveError(
            "the archive names no architecture: build it with scripts/package, or give torch-model-archiver a "
            "--model-file with one class (a TorchScript, ONNX or compiled model has no layers to explain)"
        )
    try:
        model = build()
    except Exception as error:
        raise ArchiveError(
            f"{architecture or model_block['modelFile']} cannot be called without arguments: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ArchiveError(f"{architecture} gives a {type(model).__name__}, not a torch.nn.Module")
    if model_block.get("serializedFile"):
        _load_weights(model, model_dir / model_block["serializedFile"])
    return model.to(device).eval()


def _named(architecture: str) -> Any:
    module_name, _, attribute = architecture.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ArchiveError(f"the architecture {architecture} cannot be imported: {error}") from error
    return found


def _only_class(model_file: str) -> Any:
    module = importlib.import_module(model_file.rsplit(".", 1)[0])
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    if len(classes) != 1:
        raise ArchiveError(f"{model_file} must define exactly one class, not {len(classes)}")
    return classes[0]


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ArchiveError(
            f"the weights {path.name} cannot be loaded with weights_only=True: save a plain state dict "
            f"(torch.save(model.state_dict(), ...)) [{type(error).__name__}]"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ArchiveError(f"the weights {path.name} hold a {type(state).__name__}, not a state dict")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ArchiveError(
            f"the weights {path.name} do not fit {type(model).__name__}: {first[0].strip()[:300]}"
        ) from error


def load_labels(model_dir: Path) -> dict[int, str]:
    """Class names from `index_to_name.json`, in the forms that TorchServe takes; empty where there is no such file."""
    path = model_dir / "index_to_name.json"
    if not path.is_file():
        return {}
    mapping = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(mapping, dict) and isinstance(mapping.get("object_type_names"), list):
        mapping = {str(index): name for index, name in enumerate(mapping["object_type_names"])}
    try:
        return {int(key): str(name[-1] if isinstance(name, list) else name) for key, name in mapping.items()}
    except (AttributeError, ValueError, IndexError):
        raise ArchiveError("index_to_name.json must map class indices to names") from None
