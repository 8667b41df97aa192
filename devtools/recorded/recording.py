"""The maker of a recording: it sends every case and writes down each answer."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devtools.recorded import clock
from devtools.recorded.archives import Scene

#: Members of an answer that say which code gave it, and so differ before and after by design.
NEUTRAL = ("versions",)
#: The version that stands in answers and in PNGs, whatever the code's own is.
VERSION = "0.0.0"


def prepare() -> None:
    """Makes this process compute the same each time. It comes before the handler's import."""
    clock.install()
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    # A lost device ends the worker by this call, and the worker is the recording here.
    setattr(os, "_exit", lambda code: None)  # noqa: B010
    import heatserve

    heatserve.__version__ = VERSION


def record(only: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """The answers of all cases whose name fits the pattern, by their name."""
    import torch

    from devtools.recorded.cases import every
    from devtools.recorded.worker import Worker

    said = _Said()
    logging.getLogger().addHandler(said)
    logging.getLogger().setLevel(logging.INFO)
    found: dict[str, Any] = {}
    workers: list[tuple[Scene, Worker]] = []
    with tempfile.TemporaryDirectory(prefix="recorded-") as scratch:
        for index, case in enumerate(every()):
            if not fnmatch.fnmatchcase(case.name, only):
                continue
            progress(case.name)
            torch.manual_seed(0)
            said.lines.clear()
            # Scenes are compared by value: equal ones share a handler.
            worker = next((made for scene, made in workers if scene == case.scene), None)
            if worker is None or case.scene.fresh or not case.rows:
                folder = Path(scratch) / str(index)
                folder.mkdir()
                # The handler's lock on a model lies in here: no worker waits for another one.
                tempfile.tempdir = str(folder)
                try:
                    worker = Worker(case.scene, folder / "archive")
                except Exception as error:
                    found[case.name] = {
                        "error": type(error).__name__,
                        "message": str(error),
                        "log": said.last(str(folder)),
                    }
                    continue
                if not case.rows:
                    found[case.name] = {"log": said.last(str(folder))}
                    continue
                if not case.scene.fresh:
                    workers.append((case.scene, worker))
            found[case.name] = _written(worker.ask(case.rows))
    tempfile.tempdir = None
    return found


class _Said(logging.Handler):
    """Keeps the lines that the handler writes into the log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("heatserve: "):
            self.lines.append(record.getMessage())

    def last(self, folder: str) -> str:
        """The last line: the one that says whether the archive is served."""
        return self.lines[-1].replace(folder, "FOLDER") if self.lines else ""


def _written(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the bodies of its answers as JSON values."""
    answers = {name: written(answer) for name, answer in record["answers"].items()}
    parts = {name: [written(part) for part in of] for name, of in record.get("parts", {}).items()}
    return {**record, "answers": answers, **({"parts": parts} if parts else {})}


def written(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer whose body is its hash, and its text where it is JSON, else base64."""
    content = _neutral(bytes(answer["body"]))
    shown: dict[str, Any] = {"sha256": hashlib.sha256(content).hexdigest()}
    try:
        shown["text"] = content.decode("ascii")
    except UnicodeDecodeError:
        shown["base64"] = base64.b64encode(content).decode("ascii")
    return {**answer, "body": shown}


def _neutral(content: bytes) -> bytes:
    """The body without the values of `NEUTRAL`. All other bytes stay as they came."""
    if not content.startswith(b"{"):
        return content
    for name in NEUTRAL:
        content = re.sub(rb'"%s": \{[^{}]*\}' % name.encode(), b'"%s": {}' % name.encode(), content)
    return content


def about() -> dict[str, Any]:
    """The machine and packages that a recording holds for."""
    import numpy
    import PIL
    import torch

    versions = {"torch": str(torch.__version__), "numpy": numpy.__version__, "pillow": PIL.__version__}
    return {"python": sys.version.split()[0], "processor": torch.backends.cpu.get_cpu_capability(), **versions}


def save(path: Path, cases: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({"about": about(), "cases": cases}, indent=1), encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases
