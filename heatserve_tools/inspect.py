"""The command `heatserve inspect`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from heatserve_tools import extras, tool
from heatserve_tools.errors import ToolError
from heatserve_tools.tool import FILE, Tool


@click.command(cls=Tool, short_help="Show a model's layers and methods.")
@click.argument("target", metavar="ARCHIVE|ARCHITECTURE", shell_complete=FILE.shell_complete)
@click.option("--weights", type=FILE, help="An architecture's state dict; without it the weights are random.")
@tool.labels
@tool.config
@tool.extensions
@click.option("--layer", "layers", multiple=True, metavar="NAME", help="A layer to take maps from; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@tool.verbose
def main(
    target: str,
    weights: Path | None,
    labels: Path | None,
    config: Path | None,
    extensions: tuple[Path, ...],
    layers: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Show the layers and methods of a model, and the reasons for those that are refused, without a server.

    \b
    ARCHIVE       model_store/lite0.mar
    ARCHITECTURE  torchvision.models:resnet18, or model.py:Net

    The model's code runs, in a process of its own. The exit status is 1 where a server would refuse the model.
    """
    extras.need(extras.MODEL)
    from heatserve_tools.packaging import inspector
    from heatserve_tools.packaging.packager import Recipe

    console = Console(stderr=True, highlight=False, emoji=False)
    try:
        with console.status(f"Loading {target} in a process of its own (its code runs there), and trying its layers"):
            if ":" in target and not Path(target).exists():
                model = target.rpartition(":")[2]
                inspected = inspector.network(
                    target,
                    Recipe(model, target, weights, labels, config, version="", extensions=extensions, layers=layers),
                )
            elif weights or labels or config or extensions or layers:
                raise ToolError(
                    "An archive has its own weights, labels and settings: these options need an architecture."
                )
            else:
                inspected = inspector.archive(_archive(target))
    except ToolError as error:
        if verbose and error.detail:
            console.print(error.detail, markup=False)
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(inspected.json(), indent=1))
    else:
        from heatserve_tools import inspected as printed

        printed.show(Console(highlight=False, emoji=False), inspected)
    sys.exit(0 if inspected.sound else 1)


def _archive(target: str) -> Path:
    path = Path(target)
    if path.is_dir():
        raise ToolError(f"{target} is a folder: name one archive in it.")
    if path.suffix == ".py":
        raise ToolError(f"{target} is a model file: write {target}:CALLABLE, with the function or class in it.")
    if not path.is_file():
        raise ToolError(f"There is no archive {target}; an architecture is package.module:callable or model.py:Class.")
    return path
