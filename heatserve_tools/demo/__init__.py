"""The command `heatserve demo`: the main job, end to end, on real weights and real photographs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from heatserve_tools import extras, tool
from heatserve_tools.errors import ToolError
from heatserve_tools.tool import Tool, working

if TYPE_CHECKING:
    from heatserve_tools.torchserve.server import Server


@click.command(cls=Tool, short_help="Serve a real model, explain photographs.")
@click.option("--keep", is_flag=True, help="Leave the server running until Ctrl-C and print curl lines.")
@tool.folder("--output", "demo", "The folder that pictures and answers are written to.")
@tool.folder("--model-store", "model_store", "The folder that the archives are written to.")
@click.option("--repeat", default=3, show_default=True, help="How often each method is timed.")
def main(keep: bool, output: Path, model_store: Path, repeat: int) -> None:
    """Package EfficientNet-Lite0, serve it, and explain three photographs.

    Writes for each photograph the overlay, one panel with all the methods, and the JSON answers.
    """
    extras.need(extras.MODEL, extras.SERVE, extras.ALL)
    from heatserve_tools.torchserve.server import Server, ServerError

    console = Console(highlight=False, soft_wrap=True)
    try:
        archives = _packaged(console, model_store)
        with working("Starting TorchServe"):
            server = Server(archives).start()
        try:
            _show(console, server, output, repeat)
            if keep:
                _wait(console, server, output)
        finally:
            server.stop()
    except (ServerError, ToolError) as error:
        raise click.ClickException(str(error)) from None


def _packaged(console: Console, model_store: Path) -> dict[str, Path]:
    """The two archives by name: the ordinary one, and the one that is served step by step."""
    from heatserve_tools.demo import lite0

    archives = {}
    for name in ("lite0", "lite0_live"):
        with working(f"Packaging {name}.mar and trying it"):
            packaged = lite0.build(model_store, name, continuous=name == "lite0_live")
        console.print(f"packaged {packaged.path.name}: layer {packaged.trial.layer}")
        archives[name] = packaged.path
    return archives


def _show(console: Console, server: Server, output: Path, repeat: int) -> None:
    from heatserve_tools.demo import explanations, timings

    console.print(f"TorchServe answers at {server.inference}\n")
    output.mkdir(parents=True, exist_ok=True)
    explanations.show(server.inference, output, console)
    console.print(timings.of_methods(server.inference, repeat, console))
    console.print(timings.beside_smoothgrad(server.inference, console))
    console.print(f"\nPictures and answers are in {_shown(output)}: look at chelsea-panel.png first.")


def _wait(console: Console, server: Server, output: Path) -> None:
    """Prints how to ask, and waits for Ctrl-C."""
    address, photograph = server.inference, _shown(output / "chelsea.png")
    console.print("\nThe server stays until Ctrl-C. Ask it:")
    console.print(f"  curl {address}/predictions/lite0 -T {photograph}")
    console.print(f"  curl {address}/explanations/lite0 -T {photograph}")
    console.print(
        f"  curl {address}/explanations/lite0/1.0/smoothgrad -T {photograph} -H 'Accept: image/png' -o heat.png"
    )
    console.print(
        f"  curl -N {address}/explanations/lite0_live/1.0/smoothgrad -T {photograph} -H 'Accept: application/x-ndjson'"
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("\nstopping")


def _shown(path: Path) -> Path:
    """The path as it is best read: relative where it lies below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
