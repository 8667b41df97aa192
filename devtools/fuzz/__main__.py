"""The command `scripts/fuzz`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from devtools.fuzz import cost
from devtools.fuzz.attack import attack, hostile_server
from devtools.fuzz.findings import Findings
from devtools.fuzz.senders import PROTOCOLS


@click.command()
@click.option(
    "--requests", "count", default=10_000, show_default=True, help="Hostile requests, shared by all protocols."
)
@click.option("--continuous", is_flag=True, help="To an archive in continuous batching.")
@click.option("--seed", default=0, show_default=True, help="Another seed sends other requests.")
@click.option(
    "--protocol", "only", multiple=True, type=click.Choice([*PROTOCOLS]), help="This one alone; may be repeated."
)
@click.option("--cost", "costly", is_flag=True, help="Search for the dearest pictures instead; starts no server.")
@click.option("--seconds", default=300.0, show_default=True, help="With --cost: the length of the search.")
@click.option(
    "--slack",
    type=click.FloatRange(min=1.0),
    default=1.0,
    show_default=True,
    help="With --cost: fail above the bounds times this, where decoders compare otherwise than on the table's machine.",
)
@click.option("--table", "measures", is_flag=True, help="With --cost: measure the decoders' table of costs instead.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings here as JSON.")
def main(
    count: int,
    continuous: bool,
    seed: int,
    only: tuple[str, ...],
    costly: bool,
    slack: float,
    seconds: float,
    measures: bool,
    output: Path | None,
) -> None:
    """Send hostile requests to a real TorchServe, with a good request beside each of them.

    Fails where the handler answers anything but 200, 400, 404, 405, 406, 411, 413 or 415, where a good request gets a
    wrong answer, where the worker is started again, where its memory grows, or where a line of its log is forged.
    The frontend's own answers are listed, each with a request that had it.

    With --cost: makes pictures of all formats that are meant to take much CPU time and memory to decode, changes the
    dearest of them, and fails where one takes more than the bounds that docs/security.md states.
    """
    console = Console(highlight=False)
    if costly:
        sys.exit(cost.measure_table(console) if measures else cost.search(console, seconds, seed, output, slack))
    protocols = only or tuple(PROTOCOLS)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
    findings = Findings()
    try:
        with (
            TemporaryDirectory(prefix="heatserve-fuzz-") as scratch,
            Progress(*columns, console=console) as progress,
            hostile_server(Path(scratch), continuous) as server,
        ):
            task = progress.add_task("hostile requests", total=count)
            attack(server, protocols, count, seed, findings, lambda: progress.advance(task))
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)
    findings.show(console)
    if output:
        content = {"mode": "continuous" if continuous else "ordinary", **findings.as_json()}
        output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if findings.wrong:
        raise click.ClickException(f"{len(findings.wrong)} findings")


if __name__ == "__main__":
    main(prog_name="scripts/fuzz")
