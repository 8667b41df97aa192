"""Which module imports which, read from the source of the repository's packages."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

#: For each module, the absolute names that it imports. A name that is a module here is that module's own name.
Graph = Mapping[str, "frozenset[str]"]


def modules(*folders: Path) -> dict[str, Path]:
    """The modules below some folders, by their absolute names. A name begins at its folder."""
    return {_name(path, folder): path for folder in folders for path in sorted(folder.rglob("*.py"))}


def graph(*folders: Path) -> Graph:
    """The imports of all modules below some folders, those in functions and for type checking included."""
    found = modules(*folders)
    sources = {name: path.read_text(encoding="utf-8") for name, path in found.items()}
    packages = {name for name, path in found.items() if path.name == "__init__.py"}
    hidden = {f"{package}.{name}" for package in packages for name in _own_names(sources[package])}
    return {
        name: frozenset(imported(source, name, name in packages, found, hidden)) for name, source in sources.items()
    }


def imported(
    source: str, name: str, package: bool, known: Container[str], hidden: Container[str] = ()
) -> Iterator[str]:
    """The absolute names that a module's source imports.

    name: the module's own. package: whether it is a package's `__init__`. known: the modules that exist: `from a
    import b` imports the module `a.b` where there is one, else something from the module `a`. hidden: modules whose
    name stands for something else in their package, as the function `decode` of a module `decode` does; those outside
    of the package get that.
    """
    own = name.split(".") if package else name.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            before = own[: len(own) - node.level + 1] if node.level else []
            base = ".".join([*before, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                is_module = inner in known and (inner not in hidden or name.startswith(f"{base}."))
                yield inner if is_module else base


def _own_names(source: str) -> Iterator[str]:
    """The names that a package takes out of its modules or defines: not those of the modules themselves."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name


def circles(imports: Graph) -> list[list[str]]:
    """The groups of two or more modules that all import each other, directly or by a detour."""
    reached = {name: _reached(imports, name) for name in imports}
    groups = {
        frozenset({name, *(other for other in reached[name] if name in reached.get(other, ()))}) for name in imports
    }
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reached(imports: Graph, start: str) -> set[str]:
    """The modules that a module imports, directly or by a detour."""
    found: set[str] = set()
    left = [start]
    while left:
        new = set(imports.get(left.pop(), ())) - found
        found |= new
        left += new
    return found


def _name(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder.parent if (folder / "__init__.py").exists() else folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
