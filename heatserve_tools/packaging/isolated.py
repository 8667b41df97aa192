"""A script about an unpacked archive, in a clean process that has the archive and the installed packages alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from heatserve_tools.errors import ToolError

TIMEOUT = 600
_CACHES = ("PYTHON", "XDG_", "TORCH_HOME", "HF_")


def ask(
    script: Path, unpack: Callable[[Path], object], arguments: Iterable[str], hidden: Iterable[Path] = ()
) -> tuple[Any, str]:
    """The JSON that the script wrote, and its output. Raises ToolError where it wrote none.

    The script gets the archive's folder, the path of the JSON, `arguments` and the hidden folders. The user's home is
    an empty folder in its process.

    unpack: fills the archive's folder.
    hidden: the files whose folders the script is to hide.
    """
    with tempfile.TemporaryDirectory(prefix="heatserve-trial-") as scratch:
        archive, home, temporary = (Path(scratch, part) for part in ("model", "home", "tmp"))
        for folder in (archive, home, temporary):
            folder.mkdir()
        unpack(archive)
        result = Path(scratch, "result.json")
        folders = sorted({str(path.resolve().parent) for path in hidden})
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_CACHES)}
        try:
            # -I: nothing but the archive and the installed packages can be imported.
            process = subprocess.run(
                [sys.executable, "-I", script, archive, result, *arguments, *folders],
                cwd=archive,
                env={**environment, "HOME": str(home), "TMPDIR": str(temporary)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"The archive did not load and answer within {TIMEOUT} s.") from None
        if not result.is_file():
            raise ToolError(
                f"The process that loaded the archive ended with {process.returncode} (see --verbose).", process.stdout
            )
        return json.loads(result.read_text(encoding="utf-8")), process.stdout
