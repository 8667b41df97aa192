"""The inspection of an archive: its description, and the layers and methods of its network, without a server.

`heatserve inspect` runs it in a process of its own, on an unpacked archive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine import FORWARD, METHODS, Explainer, Query, UnsuitableModel, activations
from . import start
from .loading import load_model
from .settings import Settings, read_settings

_CPU = torch.device("cpu")


def inspection(
    model_dir: Path, manifest: Mapping[str, Any], config: Mapping[str, Any] | None, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The findings as JSON values.

    refused: the sentence with which the archive does not start; null where it starts.
    description: the answer of `describe`; null where the archive does not start.
    optimised: the changes that make the network faster; null where the archive does not start.
    network: its layers and methods; null where it does not answer with class scores, or cannot be loaded.
    """
    found: dict[str, Any] = {"refused": None, "description": None, "optimised": None, "network": None}
    settings = Settings()
    try:
        settings = read_settings(config, environment)
        service = start.service(model_dir, manifest, settings, _CPU)
    except start.START_ERRORS as error:
        found["refused"] = str(error)
        # The reason is known; a network that cannot be shown either adds none.
        with suppress(Exception, SystemExit):
            model = load_model(model_dir, manifest, _CPU)
            found["network"] = network(start.explainer(_of_layers(settings), model, _CPU), model, settings, ())
        return found
    explainer, faster = service.explainer, service.explainer.optimized
    found["description"] = service.responder.description
    found["optimised"] = {
        "folded": faster.folded,
        "padded": faster.padded,
        "layout": str(faster.layout).rpartition(".")[2],
    }
    # Its own copy: the network of the service is not the one that was packaged any more, but a faster one.
    model = load_model(model_dir, manifest, _CPU)
    found["network"] = network(explainer, model, settings, settings.layers)
    return found


def network(explainer: Explainer, model: nn.Module, settings: Settings, named: Sequence[str]) -> dict[str, Any]:
    """The layers and methods of a network as JSON values.

    model: the same network, not made faster. named: the layers that the archive names.
    """
    example = start.example(settings, _CPU)
    names = [*explainer.layers, *(name for name in explainer.structure.candidates if name not in explainer.layers)]
    _, found = activations(model, example[:1], names)
    refused = _refusals(model, settings, [name for name in names if name not in explainer.layers])
    return {
        "classes": explainer.classes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layer": _choice(explainer, named, settings),
        "layers": [{"name": name, "shape": [*found[name].shape[1:]], "refused": refused.get(name)} for name in names],
        "methods": [_method(explainer, name) for name in METHODS],
    }


def _choice(explainer: Explainer, named: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The layer that is used where a request names none, and the reason for it."""
    try:
        name = explainer.layer
    except UnsuitableModel as error:
        return {"name": None, "why": str(error)}
    head = explainer.structure.head
    if named:
        return {"name": settings.defaults.get("layer", name), "why": "the archive names it (explain.layer)"}
    if head is not None and head.layer == name:
        return {"name": name, "why": f"the scores are the linear layer {head.classifier} of its mean over all places"}
    return {"name": name, "why": "it ends the convolutional trunk: only pooling and vectors follow"}


def _method(explainer: Explainer, name: str) -> dict[str, Any]:
    """One method: its draws, the forward passes that an answer costs by the limits' count, or why it is refused."""
    query = Query(name)
    try:
        explainer.check(name)
    except UnsuitableModel as error:
        return {"name": name, "passes": None, "samples": query.count, "refused": str(error)}
    return {"name": name, "passes": FORWARD + query.work, "samples": query.count, "refused": None}


def _refusals(model: nn.Module, settings: Settings, names: Sequence[str]) -> dict[str, str]:
    """The sentence with which the network refuses each of the layers that nobody may name."""
    if not names:
        return {}
    try:
        start.explainer(_of_layers(settings, names), model, _CPU).close()
    except UnsuitableModel as error:
        if len(names) == 1:
            return {names[0]: str(error)}
    else:
        return {}
    middle = len(names) // 2
    return {**_refusals(model, settings, names[:middle]), **_refusals(model, settings, names[middle:])}


def _of_layers(settings: Settings, names: Sequence[str] = ()) -> Settings:
    """The settings of the same network with other layers, whose layout is proved, and without its faster form."""
    return replace(settings, layers=names, layout=None, chunk=1, optimize=False)
