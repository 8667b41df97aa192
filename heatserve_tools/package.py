"""The command `scripts/package`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
from rich.console import Console

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging.packager import Packaged, Recipe, package
from heatserve_tools.paths import MODEL_STORE

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("name")
@click.option(
    "--architecture",
    required=True,
    metavar="WHERE:WHAT",
    help="What makes the model when called without arguments: torchvision.models:resnet50, "
    "package.module:callable, or path/model.py:Class.",
)
@click.option("--weights", required=True, type=FILE, help="Its state dict: .pt, .pth or .safetensors.")
@click.option("--labels", type=FILE, help="Class names: TorchServe's JSON, a list, or a line for each.")
@click.option("--config", type=FILE, help="The archive's model-config.yaml.")
@click.option(
    "--include-package",
    "packages",
    multiple=True,
    metavar="PACKAGE",
    help="An installed pure-Python package that the model needs and the server may lack; may be repeated.",
)
@click.option("--version", default="1.0", show_default=True, help="The model's version.")
@click.option("--export-path", type=click.Path(path_type=Path, file_okay=False), default=MODEL_STORE)
@click.option(
    "--continuous",
    is_flag=True,
    help="Serve it step by step (continuousBatching), so that predictions never wait for explanations.",
)
@click.option("--force", is_flag=True, help="Replace an archive of the same name.")
@click.option("--verbose", is_flag=True, help="On failure, show what led to it.")
def main(
    name: str,
    architecture: str,
    weights: Path,
    labels: Path | None,
    config: Path | None,
    packages: tuple[str, ...],
    version: str,
    export_path: Path,
    continuous: bool,
    force: bool,
    verbose: bool,
) -> None:
    """Build NAME.mar for TorchServe, and prove it before it is put in place.

    The proof loads the archive in a clean process with TorchServe's own loader and asks it for a prediction
    and an explanation. Where it fails, one sentence says why and no archive is left. Equal inputs give equal
    bytes.
    """
    recipe = Recipe(name, architecture, weights, labels, config, packages, version, continuous)
    console = Console(stderr=True, highlight=False, emoji=False)
    try:
        with console.status(f"Building and proving {name}.mar"):
            packaged = package(recipe, export_path, force)
    except ToolError as refusal:
        if verbose and refusal.detail:
            console.print(refusal.detail, markup=False)
        console.print("Refused: ", style="bold red", end="")
        console.print(str(refusal), soft_wrap=True, markup=False)
        sys.exit(1)
    _report(Console(highlight=False, emoji=False), name, packaged)


def _report(console: Console, name: str, packaged: Packaged) -> None:
    trial = packaged.trial
    label, probability = max(trial.prediction.items(), key=lambda item: item[1])
    rows = {
        "archive": f"{packaged.path} ({packaged.path.stat().st_size / 1e6:.1f} MB)",
        "proved": f"a test picture is {label!r} with {probability:.2f}, and was explained",
        "layer": trial.layer or "-",
        "methods": ", ".join(trial.methods) or "-",
        "weights": f"sha256 {packaged.weights_sha256}",
        "contents": f"sha256 {packaged.contents_sha256}",
    }
    for what, value in rows.items():
        console.print(f"{what:<9} {value}", soft_wrap=True, markup=False)
    for warning in trial.warnings:
        console.print("[yellow]note[/]      ", end="")
        console.print(warning, soft_wrap=True, markup=False)
    if packaged.unmet:
        console.print(
            f"[yellow]note[/]      it imports {', '.join(packaged.unmet)}, which a server may lack: "
            "--include-package carries a package along",
            soft_wrap=True,
        )
    # What is told to be typed holds for a shell, whatever the folder is called.
    folder = packaged.path.parent.resolve()
    store = "" if folder == MODEL_STORE else f" --model-store {shlex.quote(str(folder))}"
    console.print(f"\nServe it with: scripts/serve --open{store}\nand ask:", soft_wrap=True, markup=False)
    for what in ("predictions", "explanations"):
        console.print(f"  curl http://127.0.0.1:8080/{what}/{name} -T PHOTO.jpg", soft_wrap=True)


if __name__ == "__main__":
    main(prog_name="scripts/package")
