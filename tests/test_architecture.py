"""docs/architecture.md names every module of the archive's package, each one once and in its folder."""

from __future__ import annotations

import re

import pytest

from devtools.paths import HANDLERS, ROOT

PACKAGE = HANDLERS / "heatserve"
FOLDERS = sorted({str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")} - {"."})


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_architecture_names_each_file_of_a_folder_once(folder: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    part = re.search(rf"^### `{folder}`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert part is not None, f"no heading for {folder}"
    rows = [line.split("|") for line in part[1].splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row[1])]
    assert sorted(named) == sorted(path.name for path in (PACKAGE / folder).glob("*.py"))


def test_each_folder_of_the_architecture_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### `([\w/]+)`$", text, re.MULTILINE)) == FOLDERS
