"""The figures of docs/performance.md are those of the committed runs that it names."""

from __future__ import annotations

import re

from devtools.bench.document import DOCUMENT, MEMORY, newest, read, written
from devtools.paths import ROOT

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_tables_are_what_the_newest_runs_measured() -> None:
    assert written(TEXT) == TEXT, "python -m devtools.bench.document writes them anew"


def test_a_figure_in_the_text_stands_in_a_run() -> None:
    measured = {
        f"{found.value:.{digits}f}"
        for suite in ("", "-server")
        for found in read(newest(suite))
        for digits in (1, 2, 3)
    }
    # The run of `scripts/bench handle` is committed as it was printed.
    for run in (ROOT / "benchmarks").glob("*-handle.txt"):
        measured |= set(re.findall(r"\d+\.\d{3}", run.read_text(encoding="utf-8")))
    prose = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", TEXT, flags=re.DOTALL)
    for figure in re.findall(r"(\d+\.\d+) ×", prose):
        assert figure in measured, figure


def test_what_is_missed_says_so() -> None:
    for suite in ("", "-server", "-errors"):
        for found in read(newest(suite)):
            since = suite == "" and found.what.startswith(MEMORY)  # measured anew by -errors
            if found.met == "no" and not since:
                assert f"**{found.measured.replace(' ×', '')}**, missed" in TEXT, found.what
