"""The command `python -m devtools.disagreements`: it measures the examples, prints them and writes docs/methods.md."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from devtools.disagreements.example import Example
from devtools.disagreements.rows import ROWS
from devtools.methods import DOCUMENT

_SECTION = re.compile(r"(<!-- disagreements: [^\n]*-->\n).*?(<!-- /disagreements -->)", re.DOTALL)


def table(figures: Sequence[str]) -> str:
    """The table as Markdown, with a figure for each of `ROWS`."""
    lines = ["| question | heatserve | otherwise | difference |", "|---|---|---|---|"]
    for row, figure in zip(ROWS, figures):
        lines.append(f"| {row.question} | {row.follows} | {row.otherwise} | {figure} |")
    return "\n".join([*lines, ""])


def with_table(text: str, figures: Sequence[str]) -> str:
    """The document's text with the table in its place."""
    return _SECTION.sub(lambda found: found[1] + table(figures) + found[2], text)


@click.command()
def main() -> None:
    """Measure where libraries disagree, and write the table of docs/methods.md; a minute."""
    example, figures = Example(), []
    for row in ROWS:
        figures.append(row.figure(example))
        click.echo(f"{row.question}\n    {figures[-1]}")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
