"""docs/methods.md: `python -m devtools.methods` writes its tables from the registry; a test compares them."""

from __future__ import annotations

import re

import click

from devtools.paths import ROOT
from heatserve.engine import FORWARD, METHODS, Method, Query
from heatserve.engine.methods import ATTENTIONS, CAMS, GRADIENTS, PATHS, PERTURBATIONS, SMOOTHDIFF

DOCUMENT = ROOT / "docs" / "methods.md"
_TABLES = re.compile(r"(<!-- methods: [^\n]*-->\n).*?(<!-- /methods -->)", re.DOTALL)
_FAMILIES = {
    "Of an inner layer": CAMS,
    "Of the input": (*GRADIENTS, *SMOOTHDIFF),
    "Along paths, and by other rules of the backward pass": PATHS,
    "By changes of the picture": PERTURBATIONS,
    "Of transformers": ATTENTIONS,
}


def tables() -> str:
    """All families as Markdown."""
    return "\n".join(_family(title, methods) for title, methods in _FAMILIES.items())


def _family(title: str, methods: tuple[Method, ...]) -> str:
    rows = ["| method | definition | source | cost | compared with |", "|---|---|---|---|---|"]
    rows += [
        f"| `{one.name}` | {_cell(one.definition)} | {_cell(one.source)} | {_cost(one)} | {_cell(one.reference)} |"
        for one in methods
        if one.name in METHODS
    ]
    notes = [f"- `{one.name}`: {one.caveat}" for one in methods if one.caveat]
    return "\n".join([f"### {title}", "", *rows, "", *notes, *([""] if notes else [])])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _cost(method: Method) -> str:
    """The cost in forward passes as the limits count it, with the default number of samples."""
    query = Query(method.name)
    samples = f", {query.count} samples" if query.count > 1 else ""
    return f"{FORWARD + query.work}{samples}"


def with_tables(text: str) -> str:
    """The document's text with the tables as they should be."""
    return _TABLES.sub(lambda found: found[1] + tables() + found[2], text)


@click.command()
def main() -> None:
    """Write the tables of docs/methods.md from the registry."""
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
