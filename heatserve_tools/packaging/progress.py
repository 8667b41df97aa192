"""The progress of a script in a process of its own: it writes a line to a file, and the caller follows the file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 0.2

#: The number of parts that are done, the number of all, and the name of the part that has begun.
Report = Callable[[int, int, str], None]


@contextmanager
def following(path: Path, report: Report) -> Iterator[None]:
    """Calls `report` in a thread whenever the file at `path` says something new, `[done, all, name]`."""
    ended = threading.Event()

    def follow() -> None:
        last = ""
        while True:
            over = ended.wait(_SECONDS)
            try:
                text = path.read_text(encoding="utf-8")
                done, every, name = json.loads(text)
            except (OSError, ValueError):  # it is not there yet, or half written
                text = last
            if text != last:
                report(done, every, name)
                last = text
            if over:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
