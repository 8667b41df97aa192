"""A child process together with all processes that it starts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil


class ProcessGroup:
    """A process in a session of its own. `stop` ends it and the processes that it started, and no others.

    A small shell beside it holds the other end of a pipe. If this process is killed, the pipe closes, and the shell
    ends the group and removes the folder `scratch`.
    """

    def __init__(self, command: Sequence[str], *, output: IO[bytes], cwd: Path, env: Mapping[str, str], scratch: Path):
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
        self.pid = self._process.pid
        watch = 'read -r _; kill -TERM "-$0"; sleep 3; kill -KILL "-$0"; rm -rf -- "$1"'
        self._watchdog = subprocess.Popen(
            ["sh", "-c", watch, str(self.pid), str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def alive(self) -> bool:
        """Whether the process still runs. It is not reaped here, so that no other group gets its id."""
        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def descendants(self) -> list[psutil.Process]:
        """The processes that it has started, and those that these have started."""
        try:
            return list(psutil.Process(self.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def wait_for_all(self, patience: float) -> None:
        """Waits until the process and all of its group have ended, for `patience` seconds at most.

        From then on they write nothing more.
        """
        deadline = time.monotonic() + patience
        while self._members() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _members(self) -> list[int]:
        """The processes of the group that still run."""
        found = []
        for process in psutil.process_iter(["status"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == self.pid:
                    found.append(process.pid)
        return found

    def stop(self, grace: float = 10.0) -> None:
        """Asks the process to end, waits for `grace` seconds, and then kills the rest of its group."""
        if self._process.returncode is not None:
            return
        started = self.descendants()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=5)
        self._watchdog.kill()
        self._watchdog.wait()
        if self._watchdog.stdin:
            self._watchdog.stdin.close()
