"""A file of code holds one concept: it is short, or its first line says why it is not.

Files of tests are left out: a list of cases may be long.
"""

from __future__ import annotations

import pytest

from devtools.paths import HANDLERS, ROOT

MOST = 250
#: What the first line of a longer file says, before its reason: `"""The options. Over 250 lines, as one table ..."""`.
EXCUSE = f"Over {MOST} lines"


def _too_long(source: str) -> bool:
    lines = source.splitlines()
    first = next((line for line in lines if not line.startswith("#!")), "")
    return len(lines) > MOST and EXCUSE not in first


def test_no_file_of_code_is_long_without_a_reason_in_its_first_line() -> None:
    paths = [
        path for folder in (HANDLERS, ROOT / "heatserve_tools", ROOT / "devtools") for path in folder.rglob("*.py")
    ]
    paths += [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    assert len(paths) > 100
    found = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}
    long = [f"{name}: {len(source.splitlines())} lines" for name, source in found.items() if _too_long(source)]
    assert not long, "\n".join(long)


@pytest.mark.parametrize(
    ("first", "lines", "long"),
    [
        ('"""A module."""', MOST, False),
        ('"""A module."""', MOST + 1, True),
        ('"""A table. Over 250 lines, as it stands in one place."""', MOST + 1, False),
    ],
)
def test_a_reason_in_the_first_line_is_heard(first: str, lines: int, long: bool) -> None:
    assert _too_long("\n".join([first, *["x = 1"] * (lines - 1)])) is long
