"""The tables of docs/methods.md."""

from devtools.methods import DOCUMENT, with_tables
from heatserve.engine.methods import BUILT_IN


def test_the_tables_of_the_methods_are_those_of_the_registry():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_tables(text)
    assert all(f"| `{method.name}` |" in text for method in BUILT_IN)
