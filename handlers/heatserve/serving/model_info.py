"""The name, version and hashes of the archive that an answer comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelInfo:
    """The part of an archive's manifest that answers repeat.

    name, version: as the archive was packaged.
    weights_sha256: of the weights as they were given to the packager; None if the manifest has no hashes.
    contents_sha256: of the archive's members; None likewise.
    """

    name: str
    version: str
    weights_sha256: str | None
    contents_sha256: str | None


def model_info(manifest: Mapping[str, Any]) -> ModelInfo:
    """The model that a manifest speaks of; a missing name or version is an empty text."""
    model, ours = manifest.get("model", {}), manifest.get("heatserve", {})
    return ModelInfo(
        str(model.get("modelName", "")),
        str(model.get("modelVersion", "")),
        ours.get("weights_sha256"),
        ours.get("contents_sha256"),
    )
