"""The files that every archive begins with: the handler, and the package heatserve beside it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from heatserve_tools.errors import ToolError

HANDLER = "explain_handler.py"
#: The names under which these files are imported: an archive's own files must not have them.
MODULES = ("explain_handler", "heatserve")
_PACKAGE = "heatserve"
_VERSION = f"{_PACKAGE}/__init__.py", "__version__"
_CONTRACT = f"{_PACKAGE}/serving/contract.py", "CONTRACT"


def archive_root(folder: Path | None = None) -> dict[str, Path]:
    """The files by their names in an archive: all of a folder, or without one those of this installation.

    The wheel carries the handler as data of `heatserve_tools`; in a checkout it lies beside the package heatserve.
    """
    if folder is not None:
        files = {path.relative_to(folder).as_posix(): path for path in source_files(folder)}
    else:
        package = _home(_PACKAGE)
        files = {path.relative_to(package.parent).as_posix(): path for path in source_files(package)}
        shipped, beside = Path(__file__).parents[1] / "handlers" / HANDLER, package.parent / HANDLER
        files[HANDLER] = shipped if shipped.is_file() else beside
    if HANDLER not in files or not files[HANDLER].is_file():
        raise ToolError(f"The handler {HANDLER} is missing from this installation of heatserve: install it again.")
    return files


def version(root: Mapping[str, Path]) -> str:
    """The version of heatserve, read from its source."""
    found = _constant(root, *_VERSION)
    if found is None:
        raise ToolError(f"{_VERSION[0]} does not say {_VERSION[1]}.")
    return str(found)


def contract(root: Mapping[str, Path]) -> int | None:
    """The version of the call between a host and heatserve, read from its source; None where it has none."""
    found = _constant(root, *_CONTRACT)
    return None if found is None else int(found)


def source_files(folder: Path) -> list[Path]:
    """The files below a folder, in order, without those that Python and editors leave there."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix not in (".pyc", ".pyo")
        and not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _home(package: str) -> Path:
    """The folder of a package, found without importing it."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # these tools are installed together with it
    return Path(spec.origin).parent


def _constant(root: Mapping[str, Path], name: str, constant: str) -> Any:
    """The value that a file assigns to a constant at its top level; None where it does not."""
    if name not in root:
        return None
    for node in ast.parse(root[name].read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == constant:
            return ast.literal_eval(node.value)
    return None
