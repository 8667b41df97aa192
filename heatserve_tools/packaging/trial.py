"""The trial of an archive: TorchServe's own loader loads it, and it predicts, explains and describes itself."""

from __future__ import annotations

import base64
import json
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import isolated
from heatserve_tools.torchserve.shipped import METRICS


@dataclass(frozen=True)
class Trial:
    """The answers of an archive.

    prediction: labels and probabilities, or values.
    explanation: the explanation's JSON.
    description: the answer of `describe`.
    warnings: of its handler, while it loaded and answered.
    modules: the top-level modules that were imported in its process.
    """

    prediction: dict[str, float]
    explanation: dict[str, Any]
    description: dict[str, Any]
    warnings: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that this network can answer."""
        return tuple(self.description.get("methods", ()))

    @property
    def layer(self) -> str | None:
        """The layer that the explanation was taken from; None where the explanation names none."""
        explanations = self.explanation.get("explanations") or [{}]
        layer = explanations[0].get("parameters", {}).get("layer")
        return str(layer) if layer else None


def run(archive: Path, name: str, sources: Iterable[Path] = ()) -> Trial:
    """Loads the archive in a clean process and asks it. Raises ToolError with the handler's own words if it fails.

    sources: the files that the archive was made from. The process cannot open them, nor other files in their folders
    (`trial_worker.hide`).
    """
    script = Path(__file__).with_name("trial_worker.py")

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(archive) as members:
            members.extractall(folder)
        # The process may not find it where it lies: a source may lie in a folder above.
        shutil.copy(METRICS, folder.parent)

    said, log = isolated.ask(script, unpack, [name], sources, subject=f"the archive {name}.mar")
    if said["error"]:
        raise ToolError(said["error"], said["detail"] or log)
    return Trial(*_read(said["answers"], log), tuple(said["warnings"]), tuple(said["modules"]))


def _read(answers: dict[str, dict[str, Any]], log: str) -> tuple[dict[str, float], dict[str, Any], dict[str, Any]]:
    read: list[dict[str, Any]] = []
    for kind in ("prediction", "explanation", "description"):
        answer = answers[kind]
        body = base64.b64decode(answer["body"])
        try:
            content = json.loads(body)
        except ValueError:
            content = {}
        if answer["status"] != 200:
            message = content.get("message") or "no message"
            raise ToolError(f"The archive answered a {kind} with {answer['status']}: {message}", log)
        if not isinstance(content, dict) or not content:
            raise ToolError(f"The archive answered a {kind} with something that is not a JSON object.", log)
        read.append(content)
    prediction, explanation, description = read
    return prediction, explanation, description
