"""The walls between the packages: what may import what, read from the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from devtools.paths import HANDLERS

PACKAGE = HANDLERS / "heatserve"
RUNTIME = {"torch", "torchvision", "numpy", "PIL", "heatserve"}
FORBIDDEN = {
    "engine": ("heatserve.imaging", "heatserve.serving", "ts", "PIL", "numpy", "torchvision"),
    "imaging": ("heatserve.engine", "heatserve.serving", "ts"),
    "serving": ("ts",),
}


def _imports(path: Path) -> set[str]:
    """The absolute names of the modules that a file imports."""
    found = set()
    parents = path.relative_to(HANDLERS).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*parents[: len(parents) - node.level]] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


def _files(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_package_keeps_to_its_side_of_the_wall(folder: str) -> None:
    for path in _files(folder):
        for name in _imports(path):
            crossed = [wall for wall in FORBIDDEN[folder] if name == wall or name.startswith(f"{wall}.")]
            assert not crossed, f"{path.name} imports {name}"


def test_serving_uses_the_packages_by_their_front_door() -> None:
    for path in _files("serving"):
        for name in _imports(path):
            inside = name.startswith(("heatserve.engine.", "heatserve.imaging."))
            assert not inside, f"{path.name} reaches into {name}"


def test_the_archive_needs_the_four_runtime_dependencies_alone() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert roots <= RUNTIME | set(sys.stdlib_module_names), path.name


def test_only_the_entry_file_imports_torchserve() -> None:
    users = [path.name for path in HANDLERS.rglob("*.py") if any(n.split(".")[0] == "ts" for n in _imports(path))]
    assert users == ["explain_handler.py"]
