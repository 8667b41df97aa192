"""The parts that the commands share: options, the end on an error of a file, and a word on work that takes long."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape

_Command = TypeVar("_Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

config = click.option("--config", type=FILE, help="The archive's model-config.yaml.")
labels = click.option("--labels", type=FILE, help="Class names: TorchServe's JSON, a list, or a line for each.")
extensions = click.option(
    "--extension",
    "extensions",
    multiple=True,
    type=FILE,
    metavar="FILE.py",
    help="A module of your own that registers methods; may be repeated.",
)
verbose = click.option(
    "--verbose", is_flag=True, help="On failure, show the details: a traceback, or the output of the process."
)


def folder(name: str, default: str, summary: str) -> Callable[[_Command], _Command]:
    """An option that names a folder. default: relative to the folder where the user stands."""
    return click.option(name, type=FOLDER, default=Path(default), show_default=True, help=summary)


class Tool(click.Command):
    """A command that ends in one sentence where a file or a folder cannot be read or written.

    Characters that the output's encoding does not have are printed by their numbers, as Python does on the error
    stream.
    """

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:  # click ends without a word where nobody reads the output
                raise
            reason = error.strerror or str(error)
            where = f"{click.format_filename(error.filename)}: " if error.filename is not None else ""
            raise click.ClickException(f"{where}{reason}.") from None


@contextmanager
def working(doing: str) -> Iterator[None]:
    """Says on the error stream that something takes a while: as long as it lasts on a terminal, else in one line."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if not console.is_terminal:
        click.echo(f"{doing} ...", err=True)
        yield
        return
    with console.status(escape(doing)):
        yield
