"""The archive of another checkout of this repository, for a comparison with what it served."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from devtools.bench.children import ChildFailed

#: The other checkout's modules are imported in a process of their own.
_BUILD = """\
import sys
from pathlib import Path
from devtools.bench import archives
archives.ours(Path(sys.argv[1]), sys.argv[2])
"""


def ours(checkout: Path, folder: Path, network: str) -> Path:
    """An unpacked archive that the checkout's own code has made, with its handler. Raises ChildFailed."""
    root = checkout.resolve()
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": f"{root / 'handlers'}{os.pathsep}{root}"}
    command = [sys.executable, "-c", _BUILD, str(folder.resolve()), network]
    made = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if made.returncode:
        raise ChildFailed(f"{checkout} made no archive: {made.stderr[-1000:].strip()}")
    return folder / "ours"


def commit(checkout: Path) -> str:
    """The short name of the commit that is checked out."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
