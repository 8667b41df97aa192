"""The figures of docs/performance.md are those of the committed runs that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from devtools.bench import document
from devtools.bench.document import DOCUMENT, MEMORY, TABLES, newest, read, written
from devtools.bench.results import Result
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
    for suite in {suite for suite, _ in TABLES.values()}:
        for found in read(newest(suite)):
            since = suite == "" and found.what.startswith(MEMORY)  # measured anew by -errors
            if found.met == "no" and not since:
                assert f"**{found.measured.replace(' ×', '')}**, missed" in TEXT, found.what


def test_a_suite_without_a_run_is_said_to_be_unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "BENCHMARKS", tmp_path)
    empty = written(TEXT)
    assert empty.count("Not measured: no run is committed.") == len(TABLES)
    run = tmp_path / "2001-02-03-some-cpu-2-threads-rates.json"
    line = {"what": "rows a second, ordinary (lite0), against commit a", "value": 1.2, "unit": "×", "least": 1.5}
    about = {"date": "2001-02-03", "cpu": "Some CPU", "threads": 2, "commit": "abc"}
    run.write_text(json.dumps({"machine": about, "results": [line]}), encoding="utf-8")
    found = written(empty)
    assert found.count("Not measured: no run is committed.") == len(TABLES) - 1
    assert "| rows a second, ordinary, against commit a | ≥ 1.5 × | **1.200**, missed | – |" in found


def test_a_measurement_of_no_network_has_a_table_of_its_own_form() -> None:
    lines = document._table([Result("a prediction beside clients", 2.0, limit=3.0), Result("other (lite0)", 1.0)])
    assert lines[0] == "| what | asked | measured |"
    assert lines[2:] == ["| a prediction beside clients | ≤ 3 × | 2.000 |", "| other (lite0) |  | 1.000 |"]
