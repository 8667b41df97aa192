"""The command `scripts/bench`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import requests
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devtools.bench import plots, results, scaling, servers, soak, stopwatch, suites
from devtools.bench.children import ChildFailed
from devtools.bench.results import Result
from devtools.bench.suites import Steps
from devtools.paths import ROOT
from heatserve_tools.errors import ToolError
from heatserve_tools.torchserve.server import ServerError

SOAKED = 1000


def _counted(flag: str, name: str, otherwise: int, kind: click.ParamType, text: str) -> Callable[[Any], Any]:
    """An option that may be given without its number."""
    told = f"{text} Without a number: {otherwise}."
    metavar = "[MINUTES]" if isinstance(kind, click.FloatRange) else "[N]"
    return click.option(flag, name, type=kind, is_flag=False, flag_value=otherwise, metavar=metavar, help=told)


@click.command()
@click.option("--quick", is_flag=True, help="As few rounds as show that it works; the figures are rough.")
@click.option(
    "--server", is_flag=True, help="Two TorchServes side by side, this handler and the stock one; 15 minutes."
)
@click.option(
    "--scaling", "growth", is_flag=True, help="How costs grow: batch, samples, targets, pixels, clients; plots."
)
@click.option(
    "--limits", "why", is_flag=True, help="Where a SmoothGrad's time goes, and how often rounding shows in it."
)
@click.option(
    "--errors", "faithful", is_flag=True, help="What precisions do to a SmoothGrad, and its memory; ten minutes."
)
@click.option("--gpu", "cuda", is_flag=True, help="The library on a CUDA device; under 8 minutes, no network.")
@click.option("--live", "beside", is_flag=True, help="Predictions beside explanations, in both modes; half an hour.")
@click.option(
    "--photographs", "large", is_flag=True, help="Predictions beside clients that send large pictures; five minutes."
)
@_counted("--endurance", "minutes", 60, click.FloatRange(min=0.5), "MINUTES of mixed requests to continuous batching.")
@_counted("--deaths", "killed", 10, click.IntRange(min=1), "Kill the worker N times under load.")
@_counted(
    "--soak",
    "soaked",
    SOAKED,
    click.IntRange(min=soak.SETTLED + soak.WINDOW),
    "The memory over N explanations in one process.",
)
@click.option("--full", is_flag=True, help="The library, --server, --scaling and --soak: an hour.")
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
    growth: bool,
    why: bool,
    faithful: bool,
    cuda: bool,
    beside: bool,
    large: bool,
    minutes: float | None,
    killed: int | None,
    soaked: int | None,
    full: bool,
    threads: int,
    output: Path,
) -> None:
    """Measure what heatserve promises, and print it beside what is asked.

    Without a flag: explanations against a forward pass and against other libraries in interleaved rounds, and memory;
    some 15 minutes. A flag measures something else instead; several may be given. Writes DATE-MACHINE-WHAT.json, a
    table in .md, and plots.
    """
    torch.set_num_threads(threads)
    if cuda:
        try:
            stopwatch.cuda()
        except ToolError as refusal:
            raise click.UsageError(str(refusal)) from None
    of = suites.effort(quick, threads)
    soaked = soaked or (SOAKED if full else None)
    # By the ending of the file's name.
    instead: dict[str, Steps] = {
        "-server": suites.of_servers(of) if server or full else {},
        "-scaling": suites.of_scaling(of) if growth or full else {},
        "-limits": suites.of_limits() if why else {},
        "-errors": suites.of_errors(of) if faithful else {},
        "-gpu": suites.of_cuda(of) if cuda else {},
        "-live": suites.of_continuous_batching(of) if beside else {},
        "-photographs": suites.of_photographs(of) if large else {},
        "-endurance": suites.of_endurance(minutes) if minutes else {},
        "-deaths": suites.of_deaths(killed) if killed else {},
        "-soak": suites.of_soaking(soaked, threads) if soaked else {},
    }
    library = suites.of_the_library(of) if full or not any(instead.values()) else {}
    chosen = {label: steps for label, steps in {"": library, **instead}.items() if steps}
    console = Console(highlight=False)
    missing: list[str] = []
    # Each suite is written when it is done: what comes after it cannot lose it. Its commit is read before it starts.
    for label, steps in chosen.items():
        about = results.machine(threads)
        try:
            found, failed = _run(steps, console)
        except KeyboardInterrupt:
            console.print("stopped; what was not finished is not written")
            sys.exit(130)
        missing += failed
        page = results.write(output, about, found, label + "-quick" * quick)
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
    requests.RequestException,
)


def _run(steps: Steps, console: Console) -> tuple[list[Result], list[str]]:
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


def _draw(found: list[Result], page: Path) -> None:
    """A chart of what a pass costs, and one for each series."""
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
