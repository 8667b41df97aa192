"""What an archive can be asked for: served at /explanations/{model}/{version}/describe, without an image.

TorchServe has a describe hook of its own, on the management API; in continuous batching that blocks a model for good.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy
import PIL
import torch
import torchvision

from .. import __version__
from ..engine import Explainer
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
            "torchvision": str(torchvision.__version__),
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
    }


def _archive(info: ModelInfo, integrity: Integrity) -> dict[str, Any]:
    """Whether its files are what was packaged, and the two hashes of its weights: as they were given when it was
    packaged (null where that is not known), and as they lie in the archive."""
    return {
        "verified": integrity.verified,
        "weights": {
            "member": integrity.weights,
            "member_sha256": integrity.weights_sha256,
            "source_sha256": info.weights_sha256,
        },
    }


def _option(option: Option, vocabulary: Vocabulary, defaults: Mapping[str, Any]) -> dict[str, Any]:
    allowed = {"method": ", ".join(vocabulary.methods), "layer": ", ".join(vocabulary.layers) or "none"}
    return {
        "summary": option.summary,
        "allowed": allowed.get(option.name, option.allowed),
        "default": defaults.get(option.name, option.default),
    }
