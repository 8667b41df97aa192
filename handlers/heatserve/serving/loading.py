"""Loading an unpacked archive: its extensions, its network with the weights, and its labels."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine import ExtensionError, load_installed, load_modules, register_captum
from .integrity import LABELS, ArchiveError
from .programs import load_program, program_in
from .weights import load_weights


def load_extensions(modules: Sequence[str]) -> None:
    """Loads the methods of installed packages, and those of the archive's modules that `explain.extensions` names.

    Raises ArchiveError.
    """
    try:
        load_installed()
    except ExtensionError as error:
        raise ArchiveError(f"{text_in_one_line(error)}; correct that package or uninstall it") from error
    try:
        load_modules(modules)
    except ExtensionError as error:
        raise ArchiveError(
            f"explain.extensions: {text_in_one_line(error)}; name modules that the archive holds and that can be "
            "imported"
        ) from error


def load_captum(names: Sequence[str]) -> None:
    """Registers the attributions of Captum that `explain.captum` names. Raises ArchiveError where Captum is missing."""
    try:
        for name in names:
            register_captum(name)
    except ExtensionError as error:
        raise ArchiveError(f"explain.captum: {text_in_one_line(error)}; or take the key out of the archive") from error


def load_model(model_dir: Path, manifest: Mapping[str, Any], device: torch.device) -> nn.Module:
    """The network of an archive, in evaluation mode. Raises ArchiveError.

    It is built as the manifest names it, and its weights are loaded, `weights_only`; or the archive's file holds the
    whole network, by TorchScript or torch.export.
    """
    model_block = manifest.get("model", {})
    architecture = manifest.get("heatserve", {}).get("architecture")
    if architecture:
        build = _named(architecture)
    elif model_block.get("modelFile"):
        build = _only_class(model_block["modelFile"])
    else:
        return _program(model_dir, str(model_block.get("serializedFile")), device)
    try:
        model = build()
    except BaseException as error:  # sys.exit() too: it would end the worker without a word
        raise ArchiveError(
            f"{architecture or model_block['modelFile']} cannot be called without arguments: {error_in_one_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ArchiveError(
            f"{architecture or model_block['modelFile']} gives a {type(model).__name__}, not a torch.nn.Module"
        )
    if model_block.get("serializedFile"):
        load_weights(model, model_dir / model_block["serializedFile"])
    return model.to(device).eval()


def _program(model_dir: Path, name: str, device: torch.device) -> nn.Module:
    """The network that an archive's file holds as a whole. Raises ArchiveError where it holds none."""
    kind = program_in(model_dir / name)
    if kind is None:
        raise ArchiveError(
            "the archive names no architecture, and its file is no network of TorchScript or torch.export: build it "
            "with heatserve package, or give torch-model-archiver a --model-file with one class (an ONNX model is not "
            "served)"
        )
    return load_program(model_dir / name, kind, device)


def error_in_one_line(error: BaseException, longest: int = 300) -> str:
    """An error in one line, to be quoted in a sentence: its type and its text."""
    text = text_in_one_line(error, longest)
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _cut(line, longest)


def text_in_one_line(error: BaseException, longest: int = 300) -> str:
    """The text of an error in one line."""
    return _cut(" ".join(str(error).split()), longest)


def _cut(line: str, longest: int) -> str:
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _named(architecture: str) -> Any:
    module_name, _, attribute = architecture.partition(":")
    found = _imported(module_name, f"the architecture {architecture}")
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ArchiveError(f"the architecture {architecture} cannot be imported: {error_in_one_line(error)}") from error
    return found


def _imported(module: str, name: str) -> Any:
    """A module of the archive. name: of the thing that it is imported for."""
    try:
        return importlib.import_module(module)
    except BaseException as error:  # the file may do anything when it is run, even call sys.exit()
        raise ArchiveError(f"{name} cannot be imported: {error_in_one_line(error)}") from error


def _only_class(model_file: str) -> Any:
    module = _imported(model_file.rsplit(".", 1)[0], f"the architecture {model_file}")
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    if len(classes) != 1:
        raise ArchiveError(f"{model_file} must define exactly one class, not {len(classes)}")
    return classes[0]


def load_labels(model_dir: Path) -> dict[int, str]:
    """Class names from `index_to_name.json`, in the forms that TorchServe takes; empty where there is no such file.

    Raises ArchiveError.
    """
    path = model_dir / LABELS
    if not path.is_file():
        return {}
    content = path.read_bytes()
    try:
        mapping = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{LABELS} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not content.strip() else error_in_one_line(error)
        raise ArchiveError(f"{LABELS} is not JSON ({reason}): it must map class indices to names") from None
    if isinstance(mapping, dict) and isinstance(mapping.get("object_type_names"), list):
        mapping = {str(index): name for index, name in enumerate(mapping["object_type_names"])}
    try:
        labels = {int(key): str(name[-1] if isinstance(name, list) else name) for key, name in mapping.items()}
        "".join(labels.values()).encode()
    except UnicodeEncodeError:
        raise ArchiveError(f"{LABELS} has half of a surrogate pair, which is no text, in a name") from None
    except (AttributeError, ValueError, IndexError):
        raise ArchiveError(f"{LABELS} must map class indices to names") from None
    return labels
