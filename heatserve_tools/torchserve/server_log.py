"""The facts that TorchServe's log tells about a model."""

from __future__ import annotations

import re
from datetime import datetime

#: The suffix of a worker's name in the lines that its process printed.
_OUTPUT = "(?:-stdout|-stderr)?"


def _worker(log: str, model: str) -> str:
    """A pattern for the name of one of the model's workers, like W-9000-net_1.0.

    Names and versions may both have a `_`, and net_v2_1.0 is no worker of net. So the version has to be one that the
    log says the model has. Where it says none, the version may have no `_`.
    """
    said = rf"ModelVersionedRefs - Adding new version (.+) for model {re.escape(model)}$"
    versions = "|".join(map(re.escape, re.findall(said, log, re.MULTILINE))) or r"[^_\s]+?"
    return rf"(?<!\S)W-\d+-{re.escape(model)}_(?:{versions})"


def loads(log: str, model: str) -> int:
    """The number of times that a worker of the model has become ready."""
    return len(re.findall(_worker(log, model) + r" State change \S+ -> WORKER_MODEL_LOADED", log))


def bound(log: str) -> bool:
    """Whether the server listens at the address of its management API."""
    return "Management API bind to: " in log


def load_failed(log: str, model: str) -> bool:
    """Whether a worker of the model ended while it was loading, or the frontend could not read its archive."""
    died = re.search(_worker(log, model) + _OUTPUT + r" .*(Backend worker process died|Load model failed)", log)
    return died is not None or _unread(log, model) is not None


def _unread(log: str, model: str) -> str | None:
    """The reason that the frontend gives where it could not read the archive; None where it could."""
    found = re.search(rf"ModelServer - Failed to load model: {re.escape(model)}(?:\.mar)?\n(.*)", log)
    return found[1] if found else None


def batches(log: str, model: str) -> int:
    """The number of batches that the model's workers were given."""
    return len(re.findall(_worker(log, model) + _OUTPUT + " MODEL_LOG - Backend received inference", log))


def seconds_to_ready(log: str, model: str) -> list[float]:
    """The seconds of each start of a worker, from starting its process until it has loaded the model."""
    found: list[float] = []
    started: dict[str, datetime] = {}
    moment = rf"^(\S+) \[.{{5}}\] ({_worker(log, model)}) .*(Worker cmdline|-> WORKER_MODEL_LOADED)"
    for time, worker, event in re.findall(moment, log, re.MULTILINE):
        now = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S,%f")
        if event == "Worker cmdline":
            started[worker] = now
        elif worker in started:
            found.append((now - started.pop(worker)).total_seconds())
    return found


def explain(event: str, log: str, lines: int = 25, model: str = "") -> str:
    """A message: the event, the one line of a worker (or else of the server) that gives the reason, and the end of
    the log.

    model: the model whose workers may give the reason; empty for those of all models.
    """
    said = re.compile((_worker(log, model) + _OUTPUT + " " if model else "") + "MODEL_LOG - (.*)")
    worker = [found[1] for found in map(said.search, log.splitlines()) if found]
    raised = [line for line in worker or log.splitlines() if re.match(r"[\w.]*[A-Z]\w*: ", line)]
    reason = (_unread(log, model) if model else None) or (raised[-1] if raised else "")
    why = f": {reason.strip()}" if reason else ""
    tail = "\n".join(log.splitlines()[-lines:])
    return f"{event}{why}\n--- the last {lines} lines of the log ---\n{tail}"
