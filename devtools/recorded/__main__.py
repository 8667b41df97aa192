"""The command `python -m devtools.recorded`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Before torch is imported: one thread adds up in one order.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import click

from devtools.recorded import __doc__ as HELP
from devtools.recorded import differences, recording, servers

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that choose the source of the answers: the handler in this process, or a server."""
    for option in (
        click.option("--grpc", type=int, metavar="PORT", help="With --url: the port of gRPC; left out without."),
        click.option("--model", "models", multiple=True, help="With --url: a model of EfficientNet-Lite0 to ask."),
        click.option("--url", metavar="URL", help="Ask this running TorchServe instead of a handler in process."),
        click.option("--archives", type=_FOLDER, help="Start a TorchServe with the archives in here, and ask it."),
        click.option("--only", default="*", metavar="PATTERN", help="Cases whose name fits, as in a shell: 'v2/*'."),
    ):
        function = option(function)
    return function


# Click wraps a paragraph but for one that begins with this character.
@click.group(help=HELP.replace("\n\n    ", "\n\n\b\n    "))
def command() -> None:
    pass


def _answers(only: str, archives: Path | None, url: str | None, models: tuple[str, ...], grpc: int | None) -> Any:
    """A recording of the code that `PYTHONPATH` finds, or of a server."""
    shown = sys.stderr.isatty()

    def progress(name: str) -> None:
        if shown:
            click.echo(f"\r\033[K{name}", err=True, nl=False)

    if url:
        return servers.record(servers.Address(url, models or ("lite0",), grpc), progress)
    if archives:
        with servers.started(archives) as address:
            return servers.record(address, progress)
    recording.prepare()
    spec = find_spec("explain_handler")
    click.echo(f"the handler is {spec.origin if spec else 'not on PYTHONPATH'}", err=True)
    return recording.record(only, progress)


@command.command()
@click.argument("file", type=_FILE)
@_options
def record(file: Path, **asked: Any) -> None:
    """Write the answers of the code as it is now into FILE."""
    found = _answers(**asked)
    recording.save(file, found)
    click.echo(f"{len(found)} cases recorded in {file}")


@command.command()
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE, required=False)
@_options
@click.option("--most", default=20, show_default=True, help="The most cases whose differences are shown.")
@click.option("--rounding", is_flag=True, help="Allow rounding (1e-5 of a map's maximum), as for servers.")
def compare(before: Path, after: Path | None, most: int, rounding: bool, **asked: Any) -> None:
    """Compare the recording BEFORE with the code as it is now, or with the recording AFTER.

    In process answers must be equal to the byte; those of servers within rounding. Exit code 1 says that one differs.
    """
    old = recording.load(before)
    new = recording.load(after) if after else _answers(**asked)
    within = servers.TOLERANCE if rounding or asked["url"] or asked["archives"] else 0.0
    raise SystemExit(differences.report(old, new, asked["only"], most, within))


@command.command()
@click.argument("folder", type=_FOLDER)
def archives(folder: Path) -> None:
    """Package EfficientNet-Lite0 into FOLDER by this checkout's code, for both modes of TorchServe."""
    servers.build(folder)


if __name__ == "__main__":
    command()
