"""Results of measurements beside the values that were asked for, as JSON and as a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional

from devtools.bench.rounds import Ratio
from devtools.paths import ROOT

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "torchserve", "captum", "grad-cam", "torchcam", "locust")


@dataclass(frozen=True)
class Result:
    """One measurement.

    what: its name; that of a ratio also names the measurement that it is divided by.
    unit: "×" for a ratio.
    low, high: the 95 % interval, None where there is none.
    limit: the largest value that is asked for, None where none is.
    least: the smallest value that is asked for, None where none is.
    rounds: the number of rounds behind a ratio.
    detail: further figures for the JSON.
    """

    what: str
    value: float
    unit: str = "×"
    low: Optional[float] = None
    high: Optional[float] = None
    limit: Optional[float] = None
    rounds: Optional[int] = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    least: Optional[float] = None

    @staticmethod
    def of(what: str, found: Ratio, limit: float | None = None, least: float | None = None, **detail: Any) -> Result:
        return Result(what, found.median, "×", found.low, found.high, limit, found.rounds, detail, least)

    @property
    def asked(self) -> str:
        if self.least is not None:
            return f"≥ {self.least:g} {self.unit}"
        return "" if self.limit is None else f"≤ {self.limit:g} {self.unit}"

    @property
    def measured(self) -> str:
        digits = 3 if self.unit == "×" else 1
        text = f"{self.value:.{digits}f} {self.unit}"
        return text if self.low is None else f"{text} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    @property
    def met(self) -> str:
        """Whether the whole interval is as asked. A limit within the interval leaves it undecided."""
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if self.least is not None:
            return "yes" if low >= self.least else "no" if high < self.least else "undecided"
        if self.limit is None:
            return ""
        return "yes" if high <= self.limit else "no" if low > self.limit else "undecided"


def machine(threads: int) -> dict[str, Any]:
    """The machine, the packages and the commit of a run."""
    return {
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        # A load above the number of cores means that other work was measured too.
        "load_average_15_minutes": round(os.getloadavg()[2], 2),
    }


def write(folder: Path, about: Mapping[str, Any], results: Sequence[Result], label: str = "") -> Path:
    """Writes `<date>-<machine>.json` and the table beside it as `.md`. Gives the path of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", str(about["cpu"]).lower()).strip("-")
    stem = f"{about['date']}-{slug}-{about['threads']}-threads{label}"
    lines = [{**asdict(result), "asked": result.asked, "met": result.met} for result in results]
    content = json.dumps({"machine": dict(about), "results": lines}, indent=1, ensure_ascii=False)
    (folder / f"{stem}.json").write_text(content + "\n", encoding="utf-8")
    (folder / f"{stem}.md").write_text(_page(about, results), encoding="utf-8")
    return folder / f"{stem}.md"


def table(results: Sequence[Result]) -> list[tuple[str, str, str, str]]:
    return [(result.what, result.asked, result.measured, result.met) for result in results]


def _page(about: Mapping[str, Any], results: Sequence[Result]) -> str:
    sentences = [result.detail["sentence"] for result in results if "sentence" in result.detail]
    command = about.get("command", "scripts/bench")
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    rows = [("what", "asked", "measured (95 % interval)", "met"), ("---",) * 4, *table(results)]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return (
        f"# Benchmark of {about['date']}\n\n"
        f"{about['cpu']}, {about['threads']} threads of {about['cores']} cores, Python {about['python']}, {packages}; "
        f"commit {about['commit']}. Printed by `{command}`: × is the median of the ratios within interleaved "
        "rounds, with its 95 % interval by bootstrap over the rounds.\n\n"
        f"{body}\n{''.join(f'{chr(10)}{sentence}{chr(10)}' for sentence in sentences)}"
    )


def _cpu() -> str:
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return str(names[0]).strip() if names else platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True).stdout.strip()

    # The handler is measured: changes of other files do not count.
    changed = git("status", "--porcelain", "--", "handlers")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")
