"""No module of the handler or the tools imports itself by a detour."""

from __future__ import annotations

from pathlib import Path

from devtools.paths import HANDLERS, ROOT
from tests.import_graph import circles, graph, imported


def test_no_module_imports_itself_by_a_detour() -> None:
    found = circles(graph(HANDLERS, ROOT / "heatserve_tools"))
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path: Path) -> None:
    package = tmp_path / "made_up"
    (package / "inner").mkdir(parents=True)
    for name, source in {
        "__init__.py": "",
        "a.py": "from .inner import b",
        "inner/__init__.py": "",
        "inner/b.py": "def late():\n    from ..c import thing",
        "c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made_up.a import A",
        "d.py": "import made_up.a\nfrom . import e",
        "e.py": "import json",
    }.items():
        (package / name).write_text(source)
    found = graph(package)
    assert set(found) == {"made_up", "made_up.inner", *(f"made_up.{name}" for name in ("a", "inner.b", "c", "d", "e"))}
    assert circles(found) == [["made_up.a", "made_up.c", "made_up.inner.b"]]
    assert found["made_up.d"] == {"made_up.a", "made_up.e"}


def test_a_package_and_its_own_module_are_a_circle() -> None:
    known = {"p", "p.a"}
    assert [*imported("from .a import x", "p", True, known)] == ["p.a"]
    assert [*imported("from . import x", "p.a", False, known)] == ["p"]
    assert circles({"p": frozenset({"p.a"}), "p.a": frozenset({"p"})}) == [["p", "p.a"]]


def test_a_package_s_own_name_hides_its_module_from_others(tmp_path: Path) -> None:
    package = tmp_path / "made_up"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "user.py").write_text("from .inner import decode, plain")
    (package / "inner" / "__init__.py").write_text("from . import plain\nfrom .decode import decode")
    for name, source in {"decode": "", "plain": "", "own": "from . import decode"}.items():
        (package / "inner" / f"{name}.py").write_text(source)
    found = graph(package)
    assert found["made_up.user"] == {"made_up.inner", "made_up.inner.plain"}
    assert found["made_up.inner.own"] == {"made_up.inner.decode"}
