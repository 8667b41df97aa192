"""One worker for a model in continuous batching: with two, the idle one holds the queue and requests stall."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

from ..serving.integrity import ArchiveError

_PATIENCE = 5.0


def only_worker(model: str, version: str, patience: float = _PATIENCE) -> int:
    """Makes this process the only worker of its server for a model, for as long as it lives.

    The lock is the kernel's and ends with the process, however that ends. Gives the number of the open file. Raises
    ArchiveError where another worker lives.

    patience: seconds that a dying predecessor gets.
    """
    import fcntl  # POSIX alone has it

    # The server is the parent of all its workers.
    key = hashlib.sha256(f"{model}\n{version}\n{os.getppid()}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"heatserve-{key}.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(file)
                raise ArchiveError(
                    "continuousBatching: true allows one worker for a model, and there is one already; set "
                    "minWorkers: 1 and maxWorkers: 1 (for more capacity serve it under more names)"
                ) from None
            time.sleep(0.1)
