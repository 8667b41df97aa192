"""The command `scripts/bench`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import requests
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devtools.bench import deaths, endurance, library, live, memory, results, servers, soak
from devtools.bench.children import ChildFailed
from devtools.bench.networks import NETWORKS
from devtools.bench.results import Result
from devtools.bench.rounds import Seen
from devtools.paths import ROOT
from devtools.refusal import Refusal
from devtools.torchserve import ServerError


@dataclass(frozen=True)
class Effort:
    """Seconds and fewest rounds for each group of contestants, and the samples of the memory measurement."""

    seconds: float
    rounds: int
    samples: tuple[int, ...]


QUICK = Effort(12, 8, (4, 50))
DEFAULT = Effort(60, 20, (4, 50, 200, 400))


def _counted(flag: str, name: str, otherwise: int, kind: click.ParamType, text: str) -> Callable[[Any], Any]:
    """An option that may be given without its number."""
    told = f"{text} Without a number: {otherwise}."
    metavar = "[MINUTES]" if isinstance(kind, click.FloatRange) else "[N]"
    return click.option(flag, name, type=kind, is_flag=False, flag_value=otherwise, metavar=metavar, help=told)


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds and samples: some two minutes.")
@click.option("--server", is_flag=True, help="Also predictions against the stock handler, on two TorchServes.")
@click.option(
    "--live",
    "beside",
    is_flag=True,
    help="Instead: predictions beside explanations, ordinary mode and continuous batching; some half an hour.",
)
@_counted(
    "--endurance",
    "minutes",
    60,
    click.FloatRange(min=0.5),
    "Instead: MINUTES of mixed requests to continuous batching.",
)
@_counted("--deaths", "killed", 10, click.IntRange(min=1), "Instead: kill the worker N times under load.")
@_counted(
    "--soak",
    "soaked",
    1000,
    click.IntRange(min=soak.SETTLED + soak.WINDOW),
    "Also the memory over N explanations in one process.",
)
@click.option("--full", is_flag=True, help="Everything: --server and --soak.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=min(2, os.cpu_count() or 1),
    show_default=True,
    help="torch.set_num_threads, here and in child processes.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "benchmarks",
    show_default="benchmarks/",
    help="Where the results are written.",
)
def main(
    quick: bool,
    server: bool,
    beside: bool,
    minutes: float | None,
    killed: int | None,
    soaked: int | None,
    full: bool,
    threads: int,
    output: Path,
) -> None:
    """Measure what heatserve promises, and print it beside what is asked.

    Explanations against a plain forward pass and against other libraries, in interleaved rounds; the memory of
    SmoothGrad and of a Grad-CAM row. Some eight minutes. Writes DATE-MACHINE.json and .md.
    """
    torch.set_num_threads(threads)
    effort = QUICK if quick else DEFAULT
    soaked = soaked or (1000 if full else None)
    label, steps = _continuous(quick, beside, minutes, killed)
    if not steps:
        steps = _steps(effort, threads, server or full, soaked)
    console = Console(highlight=False)
    # Before the first step: the commit that is measured is the one whose code was read.
    about = results.machine(threads)
    try:
        found, failed = _run(steps, console)
    except KeyboardInterrupt:
        console.print("stopped; nothing is written")
        sys.exit(130)
    page = results.write(output, about, found, label + "-quick" * quick)
    console.print(_table(found))
    console.print(f"Written to {os.path.relpath(page)} and .json beside it.", soft_wrap=True)
    if failed:
        raise click.ClickException(f"not measured: {', '.join(failed)}")


FAILURES = (
    subprocess.CalledProcessError,
    ChildFailed,
    Refusal,
    ServerError,
    servers.Differs,
    requests.RequestException,
)
Step = Callable[[Seen], "list[Result]"]


def _steps(effort: Effort, threads: int, server: bool, soaked: int | None) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    for name in NETWORKS:
        for batch in library.BATCHES:
            steps[f"{name}, batch {batch}"] = lambda seen, name=name, batch=batch: library.measure(
                name, batch, effort.seconds, effort.rounds, seen
            )
    steps["memory of SmoothGrad"] = lambda seen: memory.smoothgrad(effort.samples, threads, seen)
    steps["memory of Grad-CAM"] = memory.gradcam_row
    if server:
        steps["predictions through TorchServe"] = lambda seen: servers.measure(effort.seconds, seen)
    if soaked:
        steps[f"{soaked} explanations"] = lambda seen: soak.measure(soaked, threads, seen)
    return steps


def _continuous(quick: bool, beside: bool, minutes: float | None, killed: int | None) -> tuple[str, dict[str, Step]]:
    """What is measured instead, of continuous batching; and how its file is told apart."""
    label, steps = "", dict[str, Step]()
    if beside:
        effort = live.QUICK if quick else live.DEFAULT
        label += "-live"
        steps["predictions beside explanations"] = lambda seen: live.measure(effort, seen)
    if minutes:
        label += "-endurance"
        steps[f"{minutes:g} minutes of mixed requests"] = lambda seen: endurance.measure(minutes, seen)
    if killed:
        label += "-deaths"
        steps[f"{killed} deaths of the worker"] = lambda seen: deaths.measure(killed, seen)
    return label, steps


def _run(steps: dict[str, Step], console: Console) -> tuple[list[Result], list[str]]:
    """What was found, and the names of the steps that failed: the others' minutes are not lost with them."""
    found: list[Result] = []
    failed: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for what, step in steps.items():
            task = progress.add_task(what, total=1.0)
            try:
                found += step(lambda share, task=task: progress.update(task, completed=share))
            except FAILURES as error:
                console.print(f"{what}: {error}", markup=False, soft_wrap=True)
                failed.append(what)
            progress.update(task, completed=1.0)
            progress.stop_task(task)
    return found, failed


def _table(found: list[Result]) -> Table:
    table = Table("what", "asked", "measured (95 % interval)", "met")
    colours = {"yes": "green", "no": "red", "undecided": "yellow", "": "default"}
    for (what, asked, measured, met), result in zip(results.table(found), found):
        table.add_row(what, asked, measured, f"[{colours[result.met]}]{met}[/]")
    return table


if __name__ == "__main__":
    main(prog_name="scripts/bench")
