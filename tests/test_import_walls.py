"""The walls between the packages: the imports that each may have, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

from devtools.paths import HANDLERS, ROOT
from tests.import_graph import graph, modules

IMPORTS = graph(HANDLERS, ROOT / "heatserve_tools", ROOT / "devtools")
RUNTIME = {"torch", "torchvision", "numpy", "PIL"}
#: For each package, the only names beside its own and the standard library's. `heatserve` is the package's version.
ALLOWED = {
    "heatserve.engine": {"torch", "heatserve"},
    "heatserve.client": {"numpy", "PIL", "heatserve"},
}
#: The one module that imports a library which an archive need not have; it does so inside a function.
BRIDGES = {"heatserve.engine.captum_bridge": "captum"}
FORBIDDEN = {
    "heatserve": ("heatserve_tools", "devtools", "explain_handler"),
    "explain_handler": ("heatserve_tools", "devtools"),
    "heatserve.engine": ("heatserve.imaging", "heatserve.serving", "ts", "PIL", "numpy", "torchvision"),
    "heatserve.imaging": ("heatserve.engine", "heatserve.serving", "heatserve.client", "heatserve.torchserve", "ts"),
    "heatserve.serving": ("ts", "heatserve.torchserve", "heatserve.client"),
    "heatserve.torchserve": ("ts", "heatserve.client"),
    "heatserve.client": ("heatserve.engine", "heatserve.imaging", "heatserve.serving", "heatserve.torchserve"),
    "heatserve_tools": ("devtools", "explain_handler", "tests", "heatserve.torchserve"),
    "devtools": ("tests",),
}


def _below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _of(package: str) -> Iterator[tuple[str, str]]:
    """Each module of a package with each name that it imports; without what a bridge leads to."""
    found = [
        (name, imported)
        for name in IMPORTS
        if _below(name, package)
        for imported in sorted(IMPORTS[name])
        if imported.split(".")[0] != BRIDGES.get(name)
    ]
    assert found, f"there is no package {package}"
    return iter(found)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_keeps_to_its_side_of_the_wall(package: str) -> None:
    for name, imported in _of(package):
        crossed = [wall for wall in FORBIDDEN[package] if _below(imported, wall)]
        assert not crossed, f"{name} imports {imported}"


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_that_is_used_alone_needs_no_more_than_it_says(package: str) -> None:
    for name, imported in _of(package):
        own = _below(imported, package) or imported.split(".")[0] in sys.stdlib_module_names
        allowed = imported in ALLOWED[package] or imported.split(".")[0] in ALLOWED[package] - {"heatserve"}
        assert own or allowed, f"{name} imports {imported}"


@pytest.mark.parametrize("package", ["heatserve.serving", "heatserve.torchserve"])
def test_serving_uses_the_packages_by_their_front_door(package: str) -> None:
    for name, imported in _of(package):
        inside = imported.startswith(("heatserve.engine.", "heatserve.imaging."))
        assert not inside, f"{name} reaches into {imported}"


def test_the_archive_needs_the_four_runtime_dependencies_alone() -> None:
    for name, imported in _of("heatserve"):
        root = imported.split(".")[0]
        assert root == "heatserve" or root in RUNTIME or root in sys.stdlib_module_names, f"{name} imports {imported}"


@pytest.mark.parametrize("name", BRIDGES)
def test_a_bridge_imports_its_library_inside_a_function_alone(name: str) -> None:
    top = ast.parse(modules(HANDLERS)[name].read_text(encoding="utf-8")).body
    found = [node for node in top if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [alias.name for node in found if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in found if isinstance(node, ast.ImportFrom) and not node.level]
    assert names and not any(_below(imported, BRIDGES[name]) for imported in names)


def test_only_the_entry_file_imports_torchserve() -> None:
    handlers = modules(HANDLERS)
    assert [name for name in handlers if any(_below(imported, "ts") for imported in IMPORTS[name])] == [
        "explain_handler"
    ]
    top = ast.parse(handlers["explain_handler"].read_text(encoding="utf-8")).body
    assert any(isinstance(node, ast.ImportFrom) and _below(node.module or "", "ts") for node in top)
