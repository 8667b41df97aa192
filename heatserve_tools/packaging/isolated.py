"""A script about an unpacked archive, in a clean process that has the archive and the installed packages alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from heatserve_tools.errors import ToolError

TIMEOUT = 600
_CACHES = ("PYTHON", "XDG_", "TORCH_HOME", "HF_")


def ask(
    script: Path,
    unpack: Callable[[Path], object],
    arguments: Iterable[str],
    hidden: Iterable[Path] = (),
    *,
    subject: str = "the archive",
    timeout: float = TIMEOUT,
) -> tuple[Any, str]:
    """The JSON that the script wrote, and its output. Raises ToolError where it wrote none.

    The script gets the archive's folder, the path of the JSON, `arguments` and the hidden folders. The user's home is
    an empty folder in its process. All processes that it started end with it.

    unpack: fills the archive's folder.
    hidden: the files whose folders the script is to hide.
    subject: the model, for a sentence about it.
    timeout: in seconds.
    """
    with tempfile.TemporaryDirectory(prefix="heatserve-trial-") as scratch:
        archive, home, temporary = (Path(scratch, part) for part in ("model", "home", "tmp"))
        for folder in (archive, home, temporary):
            folder.mkdir()
        unpack(archive)
        result = Path(scratch, "result.json")
        folders = sorted({str(path.resolve().parent) for path in hidden})
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_CACHES)}
        log = Path(scratch, "output")
        # -I: nothing but the archive and the installed packages can be imported.
        command: list[str | Path] = [sys.executable, "-I", script, archive, result, *arguments, *folders]
        ended = _run(command, archive, {**environment, "HOME": str(home), "TMPDIR": str(temporary)}, log, timeout)
        output = log.read_text(encoding="utf-8", errors="replace")
        if ended is None:
            raise ToolError(f"{subject[0].upper()}{subject[1:]} did not load and answer within {timeout:g} s.", output)
        if not result.is_file():
            raise ToolError(f"The process that loaded {subject} {ended}: --verbose shows its output.", output)
        return json.loads(result.read_text(encoding="utf-8")), output


def _run(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], log: Path, timeout: float
) -> str | None:
    """The end of the process as the end of a sentence; None where it took too long.

    Its output goes to a file, for a process that it leaves behind would keep a pipe open.
    """
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
