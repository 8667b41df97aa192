"""The command `python -m devtools.openapi`."""

from __future__ import annotations

from typing import Any

import click
import yaml

from devtools.openapi.document import description
from devtools.paths import ROOT

OPENAPI = ROOT / "docs" / "openapi.yaml"
_HEAD = "# Written by `python -m devtools.openapi`, compared by a test: change the code, not this file.\n"


class _Plain(yaml.SafeDumper):
    """Writes a part that occurs twice out twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text() -> str:
    """The file as it should be."""
    return _HEAD + yaml.dump(description(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


@click.command()
def main() -> None:
    """Write docs/openapi.yaml from the code."""
    OPENAPI.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
