"""The command `python -m devtools.recorded`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# Before torch is imported: one thread adds up in one order.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import click

from devtools.recorded import __doc__ as HELP
from devtools.recorded import differences, recording

_FILE = click.Path(dir_okay=False, path_type=Path)
_ONLY = click.option("--only", default="*", metavar="PATTERN", help="Cases whose name fits, as in a shell: 'v2/*'.")


@click.group(help=HELP)
def command() -> None:
    pass


def _recorded(only: str) -> dict[str, object]:
    """A recording of the code that `PYTHONPATH` finds."""
    recording.prepare()
    spec = find_spec("explain_handler")
    click.echo(f"the handler is {spec.origin if spec else 'not on PYTHONPATH'}", err=True)
    shown = sys.stderr.isatty()
    return recording.record(only, lambda name: click.echo(f"\r\033[K{name}", err=True, nl=False) if shown else None)


@command.command()
@click.argument("file", type=_FILE)
@_ONLY
def record(file: Path, only: str) -> None:
    """Write the answers of the code as it is now into FILE."""
    found = _recorded(only)
    recording.save(file, found)
    click.echo(f"\n{len(found)} cases recorded in {file}")


@command.command()
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE, required=False)
@_ONLY
@click.option("--most", default=20, show_default=True, help="The most cases whose differences are shown.")
def compare(before: Path, after: Path | None, only: str, most: int) -> None:
    """Compare the recording BEFORE with the code as it is now, or with the recording AFTER.

    Exit code 1 says that an answer differs.
    """
    old = recording.load(before)
    new = recording.load(after) if after else _recorded(only)
    raise SystemExit(differences.report(old, new, only, most))


if __name__ == "__main__":
    command()
