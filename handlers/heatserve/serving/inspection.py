"""The inspection of an archive: its description, and the layers and methods of its network, without a server.

`heatserve inspect` runs it in a process of its own, on an unpacked archive.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine import Explainer
from ..imaging import ImageTooLarge, UnreadableImage, png_file
from . import start
from .contact import Progress, contact
from .loading import load_model
from .service import Service
from .settings import Settings, read_settings
from .traced import traced

_CPU = torch.device("cpu")


def inspection(
    model_dir: Path,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    environment: Mapping[str, str],
    photograph: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The findings as JSON values.

    photograph: a file for a contact sheet. progress: it is told how far the sheet is.

    refused: the sentence with which the archive does not start; null where it starts.
    description: the answer of `describe`; null where the archive does not start.
    optimised: the changes that make the network faster; null where the archive does not start.
    network: its scores, layers and methods; null where it does not answer with class scores, or cannot be loaded.
    sheet: the contact sheet: `png` in base64, the class that it explains, or `refused`, why there is none; null where
        it was not asked for, or the archive does not start.
    """
    found: dict[str, Any] = {"refused": None, "description": None, "optimised": None, "network": None, "sheet": None}
    settings = Settings()
    try:
        settings = read_settings(config, environment)
        service = start.service(model_dir, manifest, settings, _CPU)
    except start.START_ERRORS as error:
        found["refused"] = str(error)
        # The reason is known; a network that cannot be shown either adds none.
        with suppress(Exception, SystemExit):
            model = load_model(model_dir, manifest, _CPU)
            explainer = start.explainer(_of_layers(settings), model, _CPU)
            found["network"] = network(explainer, _parameters(model), settings, ())
        return found
    explainer, faster = service.explainer, service.explainer.optimized
    found["description"] = service.responder.description
    found["optimised"] = {
        "folded": faster.folded,
        "padded": faster.padded,
        "packed": faster.packed,
        "layout": str(faster.layout).rpartition(".")[2],
    }
    # A copy of its own is counted: the network of the service has lost its batch normalisations to make it faster.
    parameters = _parameters(load_model(model_dir, manifest, _CPU))
    found["network"] = network(explainer, parameters, settings, settings.layers)
    if photograph is not None:
        found["sheet"] = _sheet(service, photograph, progress)
    return found


def _sheet(service: Service, photograph: Path, progress: Progress | None) -> dict[str, Any]:
    try:
        made = contact(service, photograph.read_bytes(), photograph.name, progress)
    except (OSError, UnreadableImage, ImageTooLarge) as error:
        return {"refused": str(error)}
    png = base64.b64encode(png_file(made.picture)).decode("ascii")
    return {"target": made.target, "probability": made.probability, "methods": [*made.methods], "png": png}


def network(explainer: Explainer, parameters: int, settings: Settings, named: Sequence[str]) -> dict[str, Any]:
    """The scores, layers and methods of a network as JSON values, with the number of its parameters.

    named: the layers that the archive names.
    """
    found = traced(explainer, start.example(settings, _CPU), named, bool(named) and settings.layout is not None)
    fused = settings.defaults.get("layer")
    layer = {**found["layer"], "name": fused} if fused and named else found["layer"]
    return {"parameters": parameters, **found, "layer": layer}


def _of_layers(settings: Settings) -> Settings:
    """The settings of the same network with the automatic layer, and without its faster form."""
    return replace(settings, layers=(), layout=None, chunk=1, optimize=False)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
