"""The name, version, hashes and activation of the archive that an answer comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelInfo:
    """The facts on an archive that answers repeat.

    name, version: as the archive was packaged.
    weights_sha256: of the weights as they were given to the packager; None if the manifest has no hashes.
    contents_sha256: of the archive's members; None likewise.
    activation: the function that makes answers of the network's scores.
    """

    name: str
    version: str
    weights_sha256: str | None
    contents_sha256: str | None
    activation: str = "softmax"


def model_info(manifest: Mapping[str, Any], activation: str = "softmax") -> ModelInfo:
    """The model that a manifest speaks of; a missing name or version is an empty text. activation: its setting."""
    model, ours = manifest.get("model", {}), manifest.get("heatserve", {})
    return ModelInfo(
        str(model.get("modelName", "")),
        str(model.get("modelVersion", "")),
        ours.get("weights_sha256"),
        ours.get("contents_sha256"),
        activation,
    )
