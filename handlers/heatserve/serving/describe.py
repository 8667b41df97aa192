"""The description of an archive, served without an image at /explanations/{model}/{version}/describe.

TorchServe has a describe hook of its own, on the management API. In continuous batching it blocks a model for good.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy
import PIL
import torch

from .. import __version__
from ..engine import Explainer, Layout
from .integrity import Integrity
from .model_info import ModelInfo
from .options import OPTIONS, Option
from .settings import Settings
from .vocabulary import Vocabulary


def description(
    info: ModelInfo,
    integrity: Integrity,
    explainer: Explainer,
    vocabulary: Vocabulary,
    defaults: Mapping[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    """Methods, options with their defaults, limits, layers, hashes and versions, as JSON values."""
    return {
        "model": asdict(info),
        "archive": _archive(info, integrity),
        "methods": list(vocabulary.methods),
        "options": {name: _option(option, vocabulary, defaults) for name, option in OPTIONS.items()},
        "layers": list(vocabulary.layers),
        "layouts": {name: _layout(explainer.layout_of(name)) for name in vocabulary.layers},
        "classes": vocabulary.classes,
        "labelled": bool(vocabulary.labels),
        "limits": asdict(settings.limits),
        "preprocess": asdict(settings.preprocess),
        "continuous_batching": settings.continuous,
        "device": str(explainer.device),
        "chunk": explainer.chunk,
        "optimize": settings.optimize,
        "precision": explainer.precision,
        "prediction_precision": explainer.prediction_precision,
        "versions": {
            "heatserve": __version__,
            "torch": str(torch.__version__),
            **_torchvision(),
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
    }


def _layout(layout: Layout) -> dict[str, Any]:
    """A layer's layout, and whether changed pictures have shown it; one that an operator declared is not proved."""
    return {"layout": str(layout), "layout_proved": layout.proved}


def _torchvision() -> dict[str, str]:
    """The version of torchvision, which heatserve itself does not need; empty where it cannot be imported."""
    try:
        import torchvision
    except Exception:  # it is not installed, or was built for another torch
        return {}
    return {"torchvision": str(torchvision.__version__)}


def _archive(info: ModelInfo, integrity: Integrity) -> dict[str, Any]:
    """Whether the files are those that were packaged, and two hashes of the weights.

    member_sha256: of the weights as they lie in the archive.
    source_sha256: of the weights as they were given to the packager; null where that is not known.
    """
    return {
        "verified": integrity.verified,
        "weights": {
            "member": integrity.weights,
            "member_sha256": integrity.weights_sha256,
            "source_sha256": info.weights_sha256,
        },
    }


def _option(option: Option, vocabulary: Vocabulary, defaults: Mapping[str, Any]) -> dict[str, Any]:
    layers = ", ".join(vocabulary.layers) + (", or several joined by +" if len(vocabulary.layers) > 1 else "")
    allowed = {"method": ", ".join(vocabulary.methods), "layer": layers or "none"}
    return {
        "summary": option.summary,
        "allowed": allowed.get(option.name, option.allowed),
        "default": defaults.get(option.name, option.default),
    }
