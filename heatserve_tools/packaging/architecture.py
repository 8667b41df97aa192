"""The architecture of a model: the callable that makes it, and the files that an archive has to carry for it."""

from __future__ import annotations

import ast
import contextlib
import importlib.machinery
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging.mar import Content
from heatserve_tools.packaging.root import MODULES, source_files

#: The packages of an unmodified TorchServe: they need not travel, and an archive must not hide them.
ON_THE_SERVER = {"torch", "torchvision", "numpy", "PIL", "ts"}
#: What torch itself needs: it is on a server wherever torch is.
_OF_TORCH = {"filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy", "typing_extensions"}
_COMPILED = tuple({*importlib.machinery.EXTENSION_SUFFIXES, ".so", ".pyd", ".dylib", ".dll"})


@dataclass(frozen=True)
class Architecture:
    """The callable that makes a model, as an archive names it.

    reference: `module:callable`, as it is imported inside the archive.
    members: the files that make it importable there.
    model_file: the file for TorchServe's stock handlers, which want one with exactly one class; None otherwise.
    """

    reference: str
    members: dict[str, Content] = field(default_factory=dict)
    model_file: str | None = None

    @property
    def package(self) -> str:
        return self.reference.split(":")[0].split(".")[0]


def read(text: str) -> Architecture:
    """The architecture that a text names: `package.module:callable[.attribute]` or `path/model.py:Class`.

    Raises ToolError where there is none.
    """
    place, _, name = text.rpartition(":")
    if not place or not all(part.isidentifier() for part in name.split(".")):
        raise ToolError(f"The architecture {text!r} is neither package.module:callable nor model.py:Class.")
    if place.endswith(".py"):
        return _from_file(Path(place), name)
    if not all(part.isidentifier() for part in place.split(".")):
        raise ToolError(f"The architecture's module {place!r} is not the name of a Python module.")
    if place.split(".")[0] in {*ON_THE_SERVER, "heatserve"}:
        return Architecture(text)
    return Architecture(text, package_members(place.split(".")[0]))


def package_members(name: str) -> dict[str, Content]:
    """All files of an installed package of pure Python, by their names in an archive. Raises ToolError."""
    if not name.isidentifier():
        raise ToolError(f"{name!r} is not the name of a top-level package.")
    if name in _reserved():
        raise ToolError(f"The package {name!r} is on every server or part of heatserve already: leave it out.")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ToolError(f"There is no installed package {name!r} here; install it, then package again.")
    if not spec.submodule_search_locations:
        files = {Path(spec.origin).name: Path(spec.origin)}
    else:
        home = Path(spec.origin).parent
        files = {path.relative_to(home.parent).as_posix(): path for path in source_files(home)}
    compiled = sorted(path for path in files if path.endswith(_COMPILED))
    if compiled:
        raise ToolError(
            f"The package {name!r} has compiled extensions ({compiled[0]}), which an archive cannot carry: "
            "install it on the server."
        )
    return dict(files)


def unmet_imports(members: dict[str, Content], loaded: Collection[str] | None = None) -> list[str]:
    """The packages that the archived Python files import and that neither the archive nor every server has.

    members: the files that the archive's owner brings.
    loaded: the modules that the archive's trial really imported; None counts what stands at the top of a file.
    """
    inside = {re.split(r"[./]", name)[0] for name in members}
    known = inside | _reserved() | _OF_TORCH | _standard_library()
    imported: set[str] = set()
    for name, content in members.items():
        if name.endswith(".py"):
            # A package may carry files that are no Python of this version: nothing imports them.
            with contextlib.suppress(SyntaxError, ValueError):
                tree = ast.parse(content if isinstance(content, bytes) else content.read_bytes())
                imported.update(_imports(tree.body if loaded is None else ast.walk(tree)))
    return sorted(imported - known if loaded is None else imported & set(loaded) - known)


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def module_file(path: Path, kind: str) -> ast.Module:
    """The source of a file that an archive carries as a module of its own. Raises ToolError where it cannot be one.

    kind: its part in the archive, for the sentence of a refusal.
    """
    if not path.is_file():
        raise ToolError(f"There is no {kind} {path}.")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ToolError(f"The {kind} {path.name} cannot be imported by that name: use a Python name.")
    if path.stem in _reserved() | _standard_library():
        raise ToolError(f"The {kind} {path.name} would hide the module {path.stem!r}: rename it.")
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ToolError(f"The {kind} {path.name} is not Python: line {error.lineno}: {error.msg}.") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL, or nesting without end
        raise ToolError(f"The {kind} {path.name} is not Python: {error}.") from None


def _from_file(path: Path, name: str) -> Architecture:
    tree = module_file(path, "model file")
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if name.split(".")[0] not in {*classes, *functions, *_bound(tree)}:
        defined = ", ".join([*classes, *functions]) or "nothing"
        raise ToolError(f"The model file {path.name} does not define {name!r}; it defines {defined}.")
    model_file = path.name if classes == [name] else None
    return Architecture(f"{path.stem}:{name}", {path.name: path}, model_file)


def _bound(tree: ast.Module) -> set[str]:
    """The names that a file binds by assignment or import."""
    assigned = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    imports = (node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    return {node.id for node in assigned if isinstance(node.ctx, ast.Store)} | {
        alias.asname or alias.name for node in imports for alias in node.names
    }


def _reserved() -> set[str]:
    return {*ON_THE_SERVER, *MODULES}


def _standard_library() -> set[str]:
    """The top-level modules of Python itself; Python 3.9 has no list of them."""
    names = getattr(sys, "stdlib_module_names", None)
    if names is None:
        folder = Path(sysconfig.get_path("stdlib"))
        files = [*folder.iterdir(), *(folder / "lib-dynload").glob("*")]
        names = {*sys.builtin_module_names, *(path.name.split(".")[0] for path in files)}
    return set(names)
