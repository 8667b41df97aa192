"""The options of `heatserve package` that say where a model comes from, and the recipe that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from heatserve_tools.errors import ToolError
from heatserve_tools.tool import FILE

if TYPE_CHECKING:
    from heatserve_tools.packaging.recipe import Recipe

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SOURCE = "one of --architecture, --from-mar, --huggingface and --timm, or --weights with a file of TorchScript or .pt2"


@dataclass(frozen=True)
class Asked:
    """The options as they were given. Their names are those of the command line."""

    architecture: str | None
    weights: Path | None
    from_mar: Path | None
    huggingface: Path | None
    timm: str | None
    classes: int | None
    activation: str | None
    weights_key: str | None
    ema: bool
    labels: Path | None
    config: Path | None
    packages: tuple[str, ...]
    extra_files: tuple[Path, ...]
    extensions: tuple[Path, ...]
    version: str | None
    continuous: bool


def options(command: _Command) -> _Command:
    """Adds the options of a model's source to a command."""
    made: list[Callable[[_Command], _Command]] = [
        click.option(
            "--architecture",
            metavar="MODULE:CALLABLE",
            help="The callable that makes the model without arguments: torchvision.models:resnet50, "
            "package.module:callable, or path/model.py:Class.",
        ),
        click.option(
            "--weights",
            type=FILE,
            help="Its state dict or a training's checkpoint: .pt, .pth, .ckpt, .bin or .safetensors. Without an "
            "architecture: a whole network, of TorchScript or torch.export (.pt2).",
        ),
        click.option("--from-mar", type=FILE, help="An archive of torch-model-archiver, to be taken over."),
        click.option(
            "--huggingface",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            metavar="FOLDER",
            help="A model's folder, as transformers saves it: config.json, weights, preprocessor_config.json.",
        ),
        click.option("--timm", metavar="NAME", help="The name of a model of timm; --classes and --weights go with it."),
        click.option("--classes", type=click.IntRange(1), help="The number of classes of a model of timm."),
        click.option(
            "--activation",
            type=click.Choice(["softmax", "sigmoid", "none"]),
            help="What makes answers of the network's outputs: softmax (each picture is of one class), sigmoid (each "
            "label is there or not, by itself), none (values). Asked for where nothing else says it.",
        ),
        click.option("--weights-key", metavar="KEY", help="The member of a checkpoint that holds the state dict."),
        click.option("--ema", is_flag=True, help="Take the moving average of a checkpoint's weights."),
    ]
    for option in reversed(made):
        command = option(command)
    return command


def recipe(name: str, asked: Asked, scratch: Path) -> Recipe:
    """The recipe of the archive. Raises ToolError.

    scratch: a folder for files that are made on the way; it outlives the recipe's use.
    """
    from heatserve_tools.packaging import from_mar
    from heatserve_tools.packaging.recipe import Recipe
    from heatserve_tools.packaging.state_dict import Choice

    sources = {
        "--architecture": asked.architecture,
        "--from-mar": asked.from_mar,
        "--huggingface": asked.huggingface,
        "--timm": asked.timm,
    }
    given = [option for option, value in sources.items() if value is not None]
    if len(given) > 1:
        raise ToolError(f"{' and '.join(given)} each name a network: leave all but one out.")
    if not given and asked.weights is None:
        raise ToolError(f"No network is named: give {_SOURCE}.")
    if asked.weights is None and asked.huggingface is None and asked.from_mar is None:
        raise ToolError(f"{given[0]} needs the network's weights: --weights FILE.")
    if asked.weights is not None and asked.from_mar is not None:
        raise ToolError("--from-mar takes the weights of the old archive: leave --weights out.")
    if (asked.classes is None) != (asked.timm is None):
        raise ToolError("--timm NAME and --classes N go together: the number of classes is that of the weights.")
    made = Recipe(
        name,
        asked.architecture,
        asked.weights,
        asked.labels,
        asked.config,
        asked.packages,
        asked.version or "",
        asked.continuous,
        asked.extensions,
        activation=asked.activation,
        choice=Choice(asked.weights_key, asked.ema),
        carried=_by_name(asked.extra_files),
    )
    if asked.from_mar is not None:
        made = from_mar.read(asked.from_mar, scratch, made)
    elif asked.huggingface is not None:
        from heatserve_tools.packaging import huggingface

        made = huggingface.read(asked.huggingface, scratch, made)
    elif asked.timm is not None and asked.classes is not None:
        from heatserve_tools.packaging import timm_model

        made = timm_model.read(asked.timm, asked.classes, scratch, made)
    return made.with_version()


def _by_name(files: tuple[Path, ...]) -> dict[str, Path]:
    """Files by their names in the root of an archive. Raises ToolError where two have one name."""
    named: dict[str, Path] = {}
    for path in files:
        if path.name in named:
            raise ToolError(f"Two files of the archive would be called {path.name}: rename one.")
        named[path.name] = path
    return named
