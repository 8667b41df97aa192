"""The parts that the commands share: their way to end on an error of a file, and to say what they are working at."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.markup import escape


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
