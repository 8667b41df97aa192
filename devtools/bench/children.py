"""Measurements in a process of their own, which prints its results as lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devtools.paths import HANDLERS, ROOT


class ChildFailed(RuntimeError):
    """A measurement's process ended badly. The message is the end of its output."""


def run(module: str, *arguments: object) -> Iterator[Any]:
    """Runs `python -m module arguments…` and yields each line that it prints, decoded. Ends it when interrupted."""
    environment = {**os.environ, "PYTHONPATH": f"{HANDLERS}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert child.stdout is not None
        try:
            for line in child.stdout:
                yield json.loads(line)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        if code:
            errors.seek(0)
            raise ChildFailed(f"{module} ended with {code}: {errors.read()[-1000:].strip()}")


def status(name: str) -> int:
    """A figure of this process in bytes, by Linux: VmRSS (resident now), VmHWM (the highest until now), RssAnon."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
