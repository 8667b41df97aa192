"""A document's shell line, run as a reader would run it, with this repository as the installed package."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from devtools.paths import HANDLERS, ROOT


def run(line: str, folder: Path, timeout: float = 200) -> str:
    """The output of a line in a folder. `heatserve` is the command of this repository, and `python3` this Python.

    Raises AssertionError with the error's text if the line fails.
    """
    python = shlex.quote(sys.executable)
    for name, ours in {"heatserve ": f"{python} -m heatserve_tools ", "python3 ": f"{python} "}.items():
        line = ours + line.removeprefix(name) if line.startswith(name) else line
    environment = {"PYTHONPATH": f"{HANDLERS}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout
