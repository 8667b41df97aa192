"""The command `heatserve package`."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from heatserve_tools import bringing, extras, hints, tool
from heatserve_tools.errors import ToolError
from heatserve_tools.tool import FILE, Tool, working

if TYPE_CHECKING:
    from heatserve_tools.packaging.packager import Packaged, Recipe


@click.command(cls=Tool, short_help="Build an archive from a model's weights.")
@click.argument("name")
@bringing.options
@tool.labels
@tool.config
@click.option(
    "--include-package",
    "packages",
    multiple=True,
    metavar="PACKAGE",
    help="An installed pure-Python package that the model needs and the server may lack; may be repeated.",
)
@click.option(
    "--extra-file",
    "extra_files",
    multiple=True,
    type=FILE,
    help="A file that the model's code reads or imports, for the archive's root; may be repeated.",
)
@tool.extensions
@click.option("--version", help="The model's version; 1.0 by default, or that of an old archive.")
@tool.folder("--export-path", "model_store", "The folder that the archive is written to.")
@click.option(
    "--continuous",
    is_flag=True,
    help="Serve it step by step (continuousBatching), so that predictions never wait for explanations.",
)
@click.option("--force", is_flag=True, help="Replace an archive of the same name.")
@tool.verbose
@click.pass_context
def main(
    context: click.Context,
    /,
    name: str,
    export_path: Path,
    force: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Build NAME.mar for TorchServe, and try it before it is put in place.

    The trial loads the archive in a clean process with TorchServe's own loader and asks it for a prediction
    and an explanation. Where it fails, one sentence says why and no archive is left. Equal inputs give equal
    bytes.
    """
    extras.need(extras.MODEL, extras.SERVE)
    from heatserve_tools.packaging.packager import package

    asked = bringing.Asked(**options)
    console = Console(stderr=True, highlight=False, emoji=False)
    try:
        with tempfile.TemporaryDirectory(prefix="heatserve-package-") as scratch:
            recipe = _answered(bringing.recipe(name, asked, Path(scratch)))
            with working(f"Building {name}.mar and trying it"):
                packaged = package(recipe, export_path, force)
    except ToolError as error:
        if verbose and error.detail:
            console.print(error.detail, markup=False)
        console.print("Refused: ", style="bold red", end="")
        console.print(f"{error} {hints.of(str(error), asked.labels)}".rstrip(), soft_wrap=True, markup=False)
        sys.exit(1)
    serve = context.command_path.removesuffix("package") + "serve"
    named = context.get_parameter_source("export_path") is ParameterSource.COMMANDLINE
    _report(Console(highlight=False, emoji=False), name, packaged, serve, named)


def _answered(recipe: Recipe) -> Recipe:
    """The recipe with an activation, which a person at a terminal is asked for where nothing settles it."""
    from heatserve_tools.packaging.activation import MEANINGS
    from heatserve_tools.packaging.configuration import settled

    if settled(recipe) is not None or not sys.stdin.isatty():
        return recipe
    for name, meaning in MEANINGS.items():
        click.echo(f"{name:<8} {meaning}", err=True)
    chosen = click.prompt("What makes answers of the network's outputs", type=click.Choice([*MEANINGS]), err=True)
    return replace(recipe, activation=chosen)


def _report(console: Console, name: str, packaged: Packaged, serve: str, named: bool) -> None:
    """Tells about the archive, and how to serve it. named: whether `serve` has to be told the folder."""
    from heatserve_tools.packaging.activation import MEANINGS

    trial = packaged.trial
    label, number = max(trial.prediction.items(), key=lambda item: item[1])
    rows = {
        "archive": f"{packaged.path} ({packaged.path.stat().st_size / 1e6:.1f} MB)",
        "tried": f"a test picture is {label!r} with {number:.2f}, and was explained",
        "answers": f"{packaged.activation}: {MEANINGS[packaged.activation]}",
        "layer": trial.layer or "-",
        "methods": ", ".join(trial.methods) or "-",
        "weights": f"sha256 {packaged.weights_sha256}",
        "contents": f"sha256 {packaged.contents_sha256}",
    }
    for key, value in rows.items():
        console.print(f"{key:<9} {value}", soft_wrap=True, markup=False)
    for warning in (*packaged.remarks, *trial.warnings):
        console.print("[yellow]note[/]      ", end="")
        console.print(warning, soft_wrap=True, markup=False)
    if packaged.unmet:
        console.print(
            f"[yellow]note[/]      it imports {', '.join(packaged.unmet)}, which a server may lack: "
            "--include-package carries a package along",
            soft_wrap=True,
        )
    # A shell must read the line as it is meant, whatever the folder is called.
    store = f" --model-store {shlex.quote(str(packaged.path.parent.resolve()))}" if named else ""
    console.print(f"\nServe it with: {serve} --open{store}\nand ask:", soft_wrap=True, markup=False)
    for endpoint in ("predictions", "explanations"):
        console.print(f"  curl http://127.0.0.1:8080/{endpoint}/{name} -T PHOTO.jpg", soft_wrap=True)
