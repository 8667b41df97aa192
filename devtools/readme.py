"""The parts of the README that are generated: `python -m devtools.readme` writes them, a test compares them."""

from __future__ import annotations

import re

import click

from devtools.paths import ROOT
from heatserve.serving.options import OPTIONS

README = ROOT / "README.md"
_OPTIONS = re.compile(r"(<!-- options: [^\n]*-->\n).*?(<!-- /options -->)", re.DOTALL)


def options_table() -> str:
    """The options of a request as a Markdown table."""
    rows = ["| option | what it does | allowed | default |", "|---|---|---|---|"]
    for option in OPTIONS.values():
        default = "–" if option.default is None else f"`{str(option.default).lower()}`"
        allowed = option.allowed.replace("|", "\\|")
        rows.append(f"| `{option.name}` | {option.summary} | {allowed} | {default} |")
    return "\n".join(rows) + "\n"


def with_options(text: str) -> str:
    """The README's text with the table as it should be."""
    return _OPTIONS.sub(lambda found: found[1] + options_table() + found[2], text)


@click.command()
def main() -> None:
    """Write the README's options table from the code."""
    README.write_text(with_options(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
