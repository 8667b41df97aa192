"""The command `scripts/bench`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import requests
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devtools.bench import frontend, handle, heap, plots, quota, results, scaling, servers, soak, suites
from devtools.bench.children import ChildFailed
from devtools.bench.results import Result
from devtools.bench.suites import Steps
from devtools.paths import ROOT
from heatserve.engine import METHODS
from heatserve_tools.errors import ToolError
from heatserve_tools.torchserve.server import ServerError


@click.group()
def main() -> None:
    """Measure heatserve, and print each figure beside the limit that is asked of it.

    Choose a suite; `library` is the first one to run. All but handle, heap and frontend write DATE-MACHINE-SUITE.json,
    a table in .md, and plots.
    """


QUICK = click.Option(["--quick"], is_flag=True, help="As few rounds as show that it works; the figures are rough.")
METHOD = click.Option(
    ["--method"],
    multiple=True,
    type=click.Choice([*METHODS]),
    help="Measure predictions beside one client of this method alone, in continuous batching. May be repeated.",
)
AGAINST = click.Option(
    ["--against"],
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another checkout of this repository: its handler is asked in turns with this one's.",
)
MINUTES = click.Option(["--minutes"], type=click.FloatRange(min=0.5), default=60, show_default=True)
DEATHS = click.Option(["--count"], type=click.IntRange(min=1), default=10, show_default=True)
EXPLANATIONS = click.Option(
    ["--count"], type=click.IntRange(min=soak.SETTLED + soak.WINDOW), default=1000, show_default=True
)
THREADS = click.Option(
    ["--threads"],
    type=click.IntRange(min=1),
    default=min(2, os.cpu_count() or 1),
    show_default=True,
    help="torch.set_num_threads, here and in child processes.",
)
OUTPUT = click.Option(
    ["--output"],
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "benchmarks",
    show_default="benchmarks/",
    help="The folder that the results are written into.",
)
#: For each command the function that makes its steps, and the function's own options.
SUITES: Mapping[str, tuple[Callable[..., Steps], list[click.Option]]] = {
    "library": (suites.library_suite, [QUICK]),
    "server": (suites.server_suite, [QUICK]),
    "answers": (suites.answers_suite, [QUICK]),
    "rates": (suites.rates_suite, [QUICK, AGAINST]),
    "contention": (suites.contention_suite, [QUICK]),
    "scaling": (suites.scaling_suite, [QUICK]),
    "live": (suites.live_suite, [QUICK, METHOD]),
    "photographs": (suites.photographs_suite, [QUICK]),
    "cams": (suites.cams_suite, [QUICK]),
    "smoothdiff": (suites.smoothdiff_suite, [QUICK]),
    "distances": (suites.distances_suite, [QUICK]),
    "errors": (suites.errors_suite, [QUICK]),
    "limits": (suites.limits_suite, [QUICK]),
    "gpu": (suites.gpu_suite, [QUICK]),
    "endurance": (suites.endurance_suite, [MINUTES]),
    "deaths": (suites.deaths_suite, [DEATHS]),
    "soak": (suites.soak_suite, [EXPLANATIONS]),
}
FULL = ("library", "server", "scaling", "soak")


def _command(name: str, make: Callable[..., Steps], options: list[click.Option]) -> click.Command:
    def run(threads: int, output: Path, **told: Any) -> None:
        torch.set_num_threads(threads)
        try:
            steps = make(**told)
        except ToolError as refusal:
            raise click.UsageError(str(refusal)) from None
        _measure({name: steps}, threads, output, told.get("quick", False), "-methods" * bool(told.get("method")))

    return click.Command(name, callback=run, params=[*options, THREADS, OUTPUT], help=make.__doc__)


for _name, (_make, _options) in SUITES.items():
    main.add_command(_command(_name, _make, _options))
main.add_command(heap.main, "heap")
main.add_command(frontend.main, "frontend")
main.add_command(handle.main, "handle")


@main.command(params=[QUICK, THREADS, OUTPUT])
def full(quick: bool, threads: int, output: Path) -> None:
    """library, server, scaling and soak in turn; an hour."""
    torch.set_num_threads(threads)
    told = {QUICK: quick, EXPLANATIONS: EXPLANATIONS.default}
    chosen = {name: SUITES[name] for name in FULL}
    made = {name: make(**{str(each.name): told[each] for each in options}) for name, (make, options) in chosen.items()}
    _measure(made, threads, output, quick)


def _measure(chosen: Mapping[str, Steps], threads: int, output: Path, quick: bool, ending: str = "") -> None:
    """Runs the suites in turn. Each is written when it is done, so that a later one cannot lose it.

    ending: of the files' names, beside the suite's.
    """
    console = Console(highlight=False)
    missing: list[str] = []
    for name, steps in chosen.items():
        # The commit is read before the suite starts.
        about = {**results.machine(threads), "command": f"scripts/bench {name}{' --method …' * bool(ending)}"}
        try:
            found, failed = _run(steps, console)
        except KeyboardInterrupt:
            console.print("stopped; unfinished steps are not written")
            sys.exit(130)
        missing += failed
        page = results.write(output, about, found, f"-{name}" * (name != "library") + ending + "-quick" * quick)
        _draw(found, page)
        console.print(_table(found))
        console.print(f"Written to {os.path.relpath(page)}, .json and plots beside it.", soft_wrap=True)
    if missing:
        raise click.ClickException(f"not measured: {', '.join(missing)}")


FAILURES = (
    subprocess.CalledProcessError,
    ChildFailed,
    ToolError,
    ServerError,
    servers.Differs,
    quota.Unavailable,
    requests.RequestException,
)


def _run(steps: Steps, console: Console) -> tuple[list[Result], list[str]]:
    """The results, and the names of the steps that failed. A failed step does not lose the others' minutes."""
    found: list[Result] = []
    failed: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for name, step in steps.items():
            task = progress.add_task(name, total=1.0)
            try:
                found += step(lambda share, task=task: progress.update(task, completed=share))
            except FAILURES as error:
                console.print(f"{name}: {error}", markup=False, soft_wrap=True)
                failed.append(name)
            progress.update(task, completed=1.0)
            progress.stop_task(task)
    return found, failed


def _draw(found: list[Result], page: Path) -> None:
    """A chart of the ratios to a plain forward pass, and one for each series."""
    plots.scaling(found, page.parent, page.stem)
    passes = "a plain forward pass"
    if any(result.what.endswith(f"against {passes}") for result in found):
        title = "What an explanation costs, in forward passes of plain PyTorch"
        plots.ratios(found, page.with_suffix(".png"), title, passes)
    for sentence in scaling.sentences(found):
        click.echo(sentence)


def _table(found: list[Result]) -> Table:
    table = Table("what", "asked", "measured (95 % interval)", "met")
    colours = {"yes": "green", "no": "red", "undecided": "yellow", "": "default"}
    for (what, asked, measured, met), result in zip(results.table(found), found):
        table.add_row(what, asked, measured, f"[{colours[result.met]}]{met}[/]")
    return table


if __name__ == "__main__":
    main(prog_name="scripts/bench")
