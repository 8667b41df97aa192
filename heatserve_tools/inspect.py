"""The command `heatserve inspect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from heatserve_tools import extras, tool
from heatserve_tools.errors import ToolError
from heatserve_tools.tool import FILE, Tool

if TYPE_CHECKING:
    from heatserve_tools.packaging.inspector import Inspected, Photograph


#: The characters of a line in a file, which may hold long names of layers.
_WIDTH = 160


@click.command(cls=Tool, short_help="Show a model's layers and methods.")
@click.argument("target", metavar="ARCHIVE|ARCHITECTURE", shell_complete=FILE.shell_complete)
@click.option("--weights", type=FILE, help="An architecture's state dict; without it the weights are random.")
@tool.labels
@tool.config
@tool.extensions
@click.option("--layer", "layers", multiple=True, metavar="NAME", help="A layer to take maps from; may be repeated.")
@click.option(
    "--image", type=FILE, metavar="PHOTO", help="Write a contact sheet of this photograph: every method that fits."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="SHEET.png", help="The contact sheet. Default: beside PHOTO."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@tool.verbose
def main(
    target: str,
    weights: Path | None,
    labels: Path | None,
    config: Path | None,
    extensions: tuple[Path, ...],
    layers: tuple[str, ...],
    image: Path | None,
    out: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Show the layers and methods of a model, and the reasons for those that are refused, without a server.

    \b
    ARCHIVE       model_store/lite0.mar
    ARCHITECTURE  torchvision.models:resnet18, or model.py:Net; or a file of TorchScript or torch.export

    The model's code runs, in a process of its own. The exit status is 1 where a server would refuse the model.

    A contact sheet has the photograph, and on it the map of every method that fits the model, for the class that it
    predicts. Methods with many samples take fewer of them there, and the sheet says so. No file is overwritten.
    """
    extras.need(extras.MODEL)
    from heatserve_tools.packaging import inspector
    from heatserve_tools.packaging.packager import Recipe

    console = Console(stderr=True, highlight=False, emoji=False)
    if out is not None and image is None:
        raise click.UsageError("--out names the contact sheet of --image, which is not given.")
    if out is not None and out.exists():
        raise click.ClickException(f"{out} is there already, and is left alone: name another file.")
    try:
        doing = f"Loading {target} in a process of its own (its code runs there), and trying its layers"
        with _waiting(console, doing, image) as photograph:
            architecture = target if ":" in target and not Path(target).exists() else None
            whole = target if architecture is None and _whole(Path(target)) and not weights else None
            if architecture or whole:
                weights = Path(whole) if whole else weights
                model = target.rpartition(":")[2] if architecture else Path(target).stem
                inspected = inspector.network(
                    target,
                    Recipe(
                        model, architecture, weights, labels, config, version="", extensions=extensions, layers=layers
                    ),
                    photograph,
                )
            elif weights or labels or config or extensions or layers:
                raise ToolError(
                    "An archive has its own weights, labels and settings: these options need an architecture."
                )
            else:
                inspected = inspector.archive(_archive(target), photograph)
    except ToolError as error:
        if verbose and error.detail:
            console.print(error.detail, markup=False)
        raise click.ClickException(str(error)) from None
    written = None
    if inspected.sheet is not None and image is not None:
        written = _write(inspected, image, out)
    if as_json:
        click.echo(json.dumps({**inspected.json(), "sheet_file": written and str(written)}, indent=1))
    else:
        from heatserve_tools import inspected as printed

        lines = Console(highlight=False, emoji=False)
        if not lines.is_terminal:
            lines.width = _WIDTH
        printed.show(lines, inspected)
        printed.show_sheet(lines, inspected, written)
    sys.exit(0 if inspected.sound and (image is None or written is not None) else 1)


@contextmanager
def _waiting(console: Console, doing: str, image: Path | None) -> Iterator[Photograph | None]:
    """Shows a person that work goes on: with a bar where a contact sheet is made. Gives the photograph for it."""
    from heatserve_tools.packaging.inspector import Photograph

    if image is None:
        with console.status(doing):
            yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=None)

        def report(done: int, every: int, name: str) -> None:
            bar.update(task, completed=done, total=every, description=f"Contact sheet: {name}")

        yield Photograph(image, report)


def _write(inspected: Inspected, image: Path, out: Path | None) -> Path:
    """Writes the contact sheet and gives back its path: a new file. Raises OSError."""
    sheet = inspected.sheet or b""
    if out is None:
        from heatserve_tools.overlays import write_new

        name = inspected.manifest.get("model", {}).get("modelName", "model")
        return write_new(image.parent, image.stem, f"-{name}-methods", sheet)
    with open(out, "xb") as file:
        file.write(sheet)
    return out


def _whole(path: Path) -> bool:
    """Whether a file is a whole network of TorchScript or torch.export, which needs no architecture."""
    from heatserve.serving.programs import program_in

    return path.suffix != ".mar" and program_in(path) is not None


def _archive(target: str) -> Path:
    path = Path(target)
    if path.is_dir():
        raise ToolError(f"{target} is a folder: name one archive in it.")
    if path.suffix == ".py":
        raise ToolError(f"{target} is a model file: write {target}:CALLABLE, with the function or class in it.")
    if not path.is_file():
        raise ToolError(f"There is no archive {target}; an architecture is package.module:callable or model.py:Class.")
    return path
