"""What TorchServe's log says of a model."""

from __future__ import annotations

import re
from datetime import datetime


def loads(log: str, model: str) -> int:
    """How often a worker of the model has become ready."""
    return len(re.findall(rf"-{re.escape(model)}_\S+ State change \S+ -> WORKER_MODEL_LOADED", log))


def load_failed(log: str, model: str) -> bool:
    """Whether a worker of the model ended while it was loading, or the frontend could not read its archive."""
    worker = rf"W-\d+-{re.escape(model)}_\S* "
    died = re.search(worker + r".*(Backend worker process died|Load model failed)", log)
    return died is not None or _unread(log, model) is not None


def _unread(log: str, model: str) -> str | None:
    """What the frontend says of an archive that it could not read."""
    found = re.search(rf"ModelServer - Failed to load model: {re.escape(model)}(?:\.mar)?\n(.*)", log)
    return found[1] if found else None


def batches(log: str, model: str) -> int:
    """How many batches the model's workers were given."""
    return len(re.findall(rf"W-\d+-{re.escape(model)}_\S+ MODEL_LOG - Backend received inference", log))


def seconds_to_ready(log: str, model: str) -> list[float]:
    """Of each start of a worker of the model, the time from starting its process until it has loaded the model."""
    found: list[float] = []
    started: dict[str, datetime] = {}
    moment = rf"^(\S+) \[.{{5}}\] (W-\d+-{re.escape(model)}_\S+) .*(Worker cmdline|-> WORKER_MODEL_LOADED)"
    for time, worker, what in re.findall(moment, log, re.MULTILINE):
        now = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S,%f")
        if what == "Worker cmdline":
            started[worker] = now
        elif worker in started:
            found.append((now - started.pop(worker)).total_seconds())
    return found


def explain(what: str, log: str, lines: int = 25, model: str = "") -> str:
    """`what`, the one line of a worker (or else of the server) that says why, and the end of the log.

    model: the one whose workers may say why; otherwise those of all models.
    """
    said = re.compile(rf"W-\d+-{re.escape(model)}_\S* MODEL_LOG - (.*)" if model else r"MODEL_LOG - (.*)")
    worker = [found[1] for found in map(said.search, log.splitlines()) if found]
    raised = [line for line in worker or log.splitlines() if re.match(r"[\w.]*[A-Z]\w*: ", line)]
    reason = (_unread(log, model) if model else None) or (raised[-1] if raised else "")
    why = f": {reason.strip()}" if reason else ""
    tail = "\n".join(log.splitlines()[-lines:])
    return f"{what}{why}\n--- the last {lines} lines of the log ---\n{tail}"
