"""`python -m devtools.bench.document` writes the tables of docs/performance.md from the newest committed runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from devtools.bench.networks import NETWORKS
from devtools.bench.results import Result
from devtools.paths import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
BENCHMARKS = ROOT / "benchmarks"
NAMES = {"lite0": "EfficientNet-Lite0", "resnet50": "ResNet-50"}
PASSES = "against a plain forward pass"
ERRORS = ("SmoothGrad, bias", "SmoothGrad, error", "SmoothGrad, samples")
#: Rows that are taken from the suite of errors.
MEMORY = "SmoothGrad, peak"
#: For each mark in the document the ending of the suite's files, and the choice of results for the table.
TABLES: Mapping[str, tuple[str, Callable[[Result], bool]]] = {
    "library": ("", lambda result: bool(result.asked) and not result.what.startswith(MEMORY)),
    "errors": ("-errors", lambda result: result.what.startswith(ERRORS)),
    "memory": ("-errors", lambda result: result.what.startswith(MEMORY)),
    "passes": ("", lambda result: result.what.endswith(PASSES)),
    "chunks": ("", lambda result: "noisy copies in a pass" in result.what),
    "cams": ("-cams", lambda result: bool(result.asked)),
    "smoothdiff": ("-smoothdiff", lambda result: True),
    "distances": ("-distances", lambda result: True),
    "server": ("-server", lambda result: bool(result.asked)),
    "answers": ("-answers", lambda result: True),
    "rates": ("-rates", lambda result: True),
    "photographs": ("-photographs", lambda result: bool(result.asked)),
    "live": ("-live", lambda result: bool(result.asked)),
    "methods": ("-live-methods", lambda result: bool(result.asked)),
    "contention": ("-contention", lambda result: True),
    "scaling": ("-scaling", lambda result: True),
    "operations": ("-limits", lambda result: result.what.endswith("of all")),
}


def written(text: str) -> str:
    """The document with the tables of the newest runs."""
    for name, (suite, held) in TABLES.items():
        run = newest(suite)
        lines = ["Not measured: no run is committed."] if run is None else [_about(run), "", *_shown(run, held)]
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            raise ValueError(f"{DOCUMENT.name} has no place for the table {name!r}")
        table = "\n".join([*lines, ""])
        text = marked.sub(lambda found, table=table: found[1] + table + found[2], text)
    return text


def newest(suite: str) -> Path | None:
    """The JSON of a suite's newest run that was not a quick one; None where none is committed."""
    return max(BENCHMARKS.glob(f"*-threads{suite}.json"), default=None)


def read(run: Path | None) -> list[Result]:
    """The results of a run; none where there is no run."""
    if run is None:
        return []
    names = {entry.name for entry in fields(Result)}
    lines = json.loads(run.read_text(encoding="utf-8"))["results"]
    return [Result(**{key: value for key, value in line.items() if key in names}) for line in lines]


def _about(run: Path) -> str:
    machine = json.loads(run.read_text(encoding="utf-8"))["machine"]
    page = f"../benchmarks/{run.with_suffix('.md').name}"
    return f"[{machine['date']}]({page}), {machine['cpu']}, {machine['threads']} threads, commit {machine['commit']}:"


def _shown(run: Path, held: Callable[[Result], bool]) -> list[str]:
    return _table([result for result in read(run) if held(result)])


def _table(results: list[Result]) -> list[str]:
    """A table with a line for each measurement and a column for each network, or one where no network is named."""
    if not all(_network(result.what) for result in results):
        lines = ["| what | asked | measured |", "|---|---|---|"]
        return lines + [f"| {result.what} | {result.asked} | {_cell(result)} |" for result in results]
    found: dict[str, dict[str, Result]] = {}
    for result in results:
        network = _network(result.what)
        assert network is not None
        found.setdefault(_title(result.what, network), {})[network] = result
    lines = [f"| what | asked | {' | '.join(NAMES[name] for name in NETWORKS)} |", "|---|---|---|---|"]
    for title, by_network in found.items():
        asked = next(iter(by_network.values())).asked
        cells = [_cell(by_network.get(name)) for name in NETWORKS]
        lines.append(f"| {title} | {asked} | {' | '.join(cells)} |")
    return lines


def _network(what: str) -> str | None:
    return next((name for name in NETWORKS if name in what), None)


def _title(what: str, network: str) -> str:
    """A measurement's name without its network."""
    for pattern in (rf" \({network}\)", rf"{network}, ", rf": {network}(?=,|$)"):
        what = re.sub(pattern, "", what)
    return what.removesuffix(f", {PASSES}")


def _cell(result: Result | None) -> str:
    if result is None:
        return "–"
    text = result.measured.replace(" ×", "")
    return {"no": f"**{text}**, missed", "undecided": f"{text}, undecided"}.get(result.met, text)


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
