"""The figures that are shown are those that were measured."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from devtools.bench import results
from devtools.paths import ROOT


def test_every_committed_table_is_what_its_measurements_print(tmp_path: Path) -> None:
    files = sorted((ROOT / "benchmarks").glob("*.json"))
    assert files
    names = {entry.name for entry in fields(results.Result)}
    for file in files:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        found = [results.Result(**{k: v for k, v in line.items() if k in names}) for line in recorded["results"]]
        printed = results.write(tmp_path, recorded["machine"], found).read_text(encoding="utf-8")
        assert file.with_suffix(".md").read_text(encoding="utf-8") == printed
