"""Unpacked archives of the test networks, and the handlers that serve them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LABELS = ("cat", "dog", "crane", "crane", "Bär", "evil\r\n[METRICS]x.Count:1|#a:b")
VIEW = {"resize": 36, "crop": 32}


@dataclass(frozen=True)
class Scene:
    """An archive and its settings.

    network: the name of one in `networks`.
    explain, preprocess, server: blocks of model-config.yaml, `server` for TorchServe's own keys.
    labels: by class index; empty for an archive without labels.
    manifest, model: members that are added to the manifest's blocks `heatserve` and `model`.
    files: further members by their name.
    verified: whether the manifest has the hashes of all members.
    environment: variables of the worker.
    fresh: whether every case gets a handler of its own; else the handler of the case before goes on.
    seconds_per_row: see `clock.Clock`.
    """

    network: str = "Linear"
    explain: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=lambda: VIEW)
    server: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = LABELS
    manifest: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    verified: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False
    seconds_per_row: float = 0.0

    @property
    def continuous(self) -> bool:
        return self.server.get("continuousBatching") is True


def write(scene: Scene, folder: Path) -> dict[str, Any]:
    """Writes the archive as TorchServe would unpack it; gives its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    if scene.labels:
        labels = {str(index): label for index, label in enumerate(scene.labels)}
        (folder / "index_to_name.json").write_text(json.dumps(labels))
    explain = {"chunk": 8, **scene.explain}
    config = {**scene.server, "preprocess": dict(scene.preprocess), "explain": explain}
    # JSON is YAML too.
    (folder / "config.yaml").write_text(json.dumps(config))
    for name, content in scene.files.items():
        (folder / name).write_bytes(content)
    model = {"modelName": "recorded", "modelVersion": "1.0", "configFile": "config.yaml", **scene.model}
    ours: dict[str, Any] = {"weights_sha256": "w", "contents_sha256": "c"}
    if "modelFile" not in model:
        ours["architecture"] = f"devtools.recorded.networks:{scene.network}"
    ours.update(scene.manifest)
    manifest = {"model": model, "heatserve": ours}
    if scene.verified:
        ours["members"] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())
        }
        ours["contents_sha256"] = _over_all(manifest)
        # Members that are given in the scene stand for those that were changed after the packaging.
        ours["members"] = {**ours["members"], **scene.manifest.get("members", {})}
    return manifest


def _over_all(manifest: Mapping[str, Any]) -> str:
    """The hash of everything in an archive, as docs/security.md says it."""
    block = {name: value for name, value in manifest["heatserve"].items() if name != "contents_sha256"}
    text = json.dumps({**manifest, "heatserve": block}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
