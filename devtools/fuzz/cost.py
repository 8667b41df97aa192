"""The command `scripts/fuzz --cost`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devtools.fuzz import decoders
from devtools.fuzz.measured import REFERENCE
from devtools.fuzz.search import PEAK, SECONDS, SMALL, SMALL_PEAK, SMALL_SECONDS, UNPROMISED, Search, beyond, run

_COLUMNS = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn())


def search(console: Console, seconds: float, seed: int, output: Path | None, slack: float) -> int:
    """Searches and shows the ten dearest pictures. Gives the exit code, 1 for one above `slack` times its bounds."""
    try:
        with Progress(*_COLUMNS, console=console) as progress:
            task = progress.add_task("dear pictures", total=seconds)
            workers = max(1, min(4, (os.cpu_count() or 1)))
            found = run(seconds, seed, workers, lambda passed: progress.update(task, completed=passed))
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    console.print(_table(found))
    console.print(
        f"{found.tried} pictures. CPU seconds are those of a machine that decodes a plain JPEG of 12 megapixels in"
        f" {1000 * REFERENCE:.0f} ms.\nBounds: {SMALL_SECONDS} s and {SMALL_PEAK / 1e6:.0f} MB for up to {SMALL:,}"
        f" bytes, {SECONDS} s and {PEAK / 1e6:.0f} MB for any picture; {UNPROMISED} s beyond twice what was promised."
    )
    if output:
        output.write_text(json.dumps([asdict(each) for each in found.worst()], indent=1) + "\n", encoding="utf-8")
    faults = list(beyond(found, slack))
    for fault in faults:
        console.print(f"WRONG {fault}", style="red", markup=False)
    return 1 if faults else 0


def measure_table(console: Console) -> int:
    """Shows the time of each decoder beside the table's promise."""
    shown = Table("decoder", "picture", "bytes", "measured ms", "nominal ms", "nominal / measured")
    for line in decoders.measured():
        ratio = line.nominal / line.milliseconds
        style = "red" if ratio < 0.8 else "yellow" if ratio > 3 else ""
        shown.add_row(
            line.decoder,
            line.picture,
            f"{line.sent:,}",
            f"{line.milliseconds:.1f}",
            f"{line.nominal:.1f}",
            f"{ratio:.2f}",
            style=style,
        )
    console.print(shown)
    return 0


def _table(search: Search) -> Table:
    shown = Table("picture", "bytes", "CPU s", "promised s", "peak MB", "of the bound", "verdict")
    for found in search.worst():
        shown.add_row(
            found.image or f"{found.candidate.kind}, seed {found.candidate.seed}",
            f"{found.sent:,}",
            f"{found.seconds:.2f}",
            f"{found.promised:.2f}",
            f"{found.peak / 1e6:.0f}",
            f"{search.share(found):.0%}",
            found.verdict[:80],
        )
    return shown
