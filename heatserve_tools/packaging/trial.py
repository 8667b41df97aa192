"""The proof of an archive: TorchServe's own loader loads it, and it predicts, explains and describes itself."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from heatserve_tools.errors import ToolError
from heatserve_tools.torchserve.shipped import METRICS

TIMEOUT = 600


@dataclass(frozen=True)
class Trial:
    """What the archive answered: its labels and probabilities, the explanation's JSON, its description, and the
    warnings of its handler while it loaded and answered."""

    prediction: dict[str, float]
    explanation: dict[str, Any]
    description: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that this network can do."""
        return tuple(self.description.get("methods", ()))

    @property
    def layer(self) -> str | None:
        """The layer that the explanation was taken from, where it says so."""
        explanations = self.explanation.get("explanations") or [{}]
        layer = explanations[0].get("parameters", {}).get("layer")
        return str(layer) if layer else None


def run(archive: Path, name: str, sources: Iterable[Path] = ()) -> Trial:
    """Loads the archive in a clean process and asks it; ToolError with the handler's own words if it fails.

    sources: the files that the archive was made from. The process cannot open them, nor what lies in their folders
    (`trial_worker.hide`), and the user's home is an empty folder.
    """
    folders = sorted({str(path.resolve().parent) for path in sources})
    with tempfile.TemporaryDirectory(prefix="heatserve-trial-") as scratch:
        model, home, temporary = (Path(scratch, part) for part in ("model", "home", "tmp"))
        home.mkdir()
        temporary.mkdir()
        metrics = shutil.copy(_metrics(), Path(scratch, "metrics.yaml"))
        result = Path(scratch, "result.json")
        with zipfile.ZipFile(archive) as members:
            members.extractall(model)
        caches = ("PYTHON", "XDG_", "TORCH_HOME", "HF_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(caches)}
        script = Path(__file__).with_name("trial_worker.py")
        try:
            # -I: nothing but the archive and the installed packages can be imported.
            process = subprocess.run(
                [sys.executable, "-I", script, model, name, metrics, result, *folders],
                cwd=model,
                env={**env, "HOME": str(home), "TMPDIR": str(temporary)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"The archive did not load and answer within {TIMEOUT} s.") from None
        if not result.is_file():
            raise ToolError(f"The process that loaded the archive ended with {process.returncode}.", process.stdout)
        said = json.loads(result.read_text())
    if said["error"]:
        raise ToolError(said["error"], said["detail"] or process.stdout)
    return Trial(*_read(said["answers"], process.stdout), tuple(said["warnings"]))


def _read(answers: dict[str, dict[str, Any]], log: str) -> tuple[dict[str, float], dict[str, Any], dict[str, Any]]:
    read: list[dict[str, Any]] = []
    for what in ("prediction", "explanation", "description"):
        answer = answers[what]
        body = base64.b64decode(answer["body"])
        try:
            content = json.loads(body)
        except ValueError:
            content = {}
        if answer["status"] != 200:
            message = content.get("message") or "no message"
            raise ToolError(f"The archive answered a {what} with {answer['status']}: {message}", log)
        if not isinstance(content, dict) or not content:
            raise ToolError(f"The archive answered a {what} with something that is not a JSON object.", log)
        read.append(content)
    prediction, explanation, description = read
    return prediction, explanation, description


def _metrics() -> Path:
    if METRICS.is_file():
        return METRICS
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise ToolError("Proving an archive needs the package torchserve.")
    return Path(spec.origin).parent / "configs" / "metrics.yaml"
