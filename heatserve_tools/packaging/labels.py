"""Class names from the usual kinds of files, for TorchServe's `index_to_name.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Union

from heatserve_tools.errors import ToolError

Label = Union[str, list[str]]


def read(path: Path) -> dict[str, Label]:
    """The names by class, {"0": "tench", ...} or {"0": ["n01440764", "tench"], ...}: complete and in order.

    path: a file in one of TorchServe's JSON formats, a JSON list, or a text file with a line for each class.

    The entries of a JSON mapping stay as they are, so that the stock handler says the same names. Raises ToolError for
    a file that names no classes, or not all of them.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"The labels {path} cannot be read as UTF-8 text.", str(error)) from None
    named = _from_json(path, text) if path.suffix == ".json" else _from_lines(path, text)
    if not named:
        raise ToolError(f"The labels {path.name} name no class.")
    return {str(index): named[index] for index in range(len(named))}


def _from_lines(path: Path, text: str) -> dict[int, Label]:
    lines = text.rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ToolError(f"Line {number} of {path.name} is empty; each line names one class, in order.")
    return {index: line.strip() for index, line in enumerate(lines)}


def _from_json(path: Path, text: str) -> dict[int, Label]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "the file is empty" if not text.strip() else str(error)
        raise ToolError(f"The labels {path.name} are not JSON: {reason}.") from None
    if isinstance(content, dict) and isinstance(content.get("object_type_names"), list):
        content = content["object_type_names"]
    if isinstance(content, list):
        content = {str(index): label for index, label in enumerate(content)}
    if not isinstance(content, dict):
        raise ToolError(f'The labels {path.name} must be a list of names or a mapping like {{"0": "tench"}}.')
    named: dict[int, Label] = {}
    for key, label in content.items():
        if not (key.isascii() and key.isdigit()):
            raise ToolError(f"The labels {path.name} have the key {key!r}; keys are class indices: 0, 1, 2 ...")
        names = label if isinstance(label, list) else [label]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ToolError(f"The label of class {key} in {path.name} is not a name, nor a list of names.")
        if any("\ud800" <= character <= "\udfff" for name in names for character in name):
            raise ToolError(f"The label of class {key} in {path.name} has half of a surrogate pair, which is no text.")
        named[int(key)] = label
    missing = next((index for index in range(len(named)) if index not in named), None)
    if missing is not None:
        raise ToolError(f"The labels {path.name} name {len(content)} classes but not class {missing}.")
    return named
