"""The findings of a run of hostile requests: which answers are right, and which the frontend gave by itself."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from devtools.fuzz.senders import Response
from devtools.growth import settled_and_end

#: The statuses that the handler may answer with.
RIGHT = frozenset({200, 400, 404, 405, 406, 411, 413, 415})
#: Messages of TorchServe about a handler or a worker that failed. They are not answers of the frontend by itself.
_FAILED = ("Worker died", "Prediction failed", "Out of resources", "batch response mismatched", "model predict output")


@dataclass
class Findings:
    """The answers to all requests.

    statuses: their numbers, by protocol.
    frontend: the frontend's own answers of other statuses, each with its number and one request that had it.
    wrong: a sentence for each fault.
    resident: the workers' resident memory over the time, in MB.
    """

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    frontend: dict[str, tuple[int, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)

    def take(self, protocol: str, response: Response) -> None:
        """Counts a response and judges it."""
        self.statuses[protocol][response.status] += 1
        if response.status in RIGHT:
            return
        if _by_frontend(response):
            key = f"{response.status} {_summary(response)}"
            count, request = self.frontend.get(key, (0, f"{protocol}: {response.request}"))
            self.frontend[key] = (count + 1, request)
        else:
            told = f"{response.status} {response.body[:300]!r} {response.reason}"
            self.wrong.append(f"{protocol}: {told} for {response.request[:600]}")

    @property
    def growth(self) -> float:
        """The workers' memory at the end, against that after a fifth of the time."""
        settled, end = settled_and_end(self.resident or [1.0])
        return end / settled

    def show(self, console: Console) -> None:
        """Prints a table of the statuses, the frontend's own answers, the memory and the first faults."""
        statuses = sorted({status for counter in self.statuses.values() for status in counter})
        title = "answers by status (0: the gRPC call failed, -1: no answer)"
        table = Table("protocol", *map(str, statuses), title=title)
        for protocol, counter in self.statuses.items():
            table.add_row(protocol, *(str(counter[status] or "") for status in statuses))
        console.print(table)
        for summary, (count, request) in self.frontend.items():
            console.print(f"[yellow]the frontend itself[/] {count} x {summary}\n    for example {request[:300]}")
        console.print(f"memory of the workers: {self.growth:.3f} times, the end against after a fifth")
        for fault in self.wrong[:20]:
            console.print(f"WRONG {fault}", style="red", markup=False)

    def as_json(self) -> dict[str, Any]:
        """Everything but the longest lists, which are cut."""
        return {
            "requests": sum(counter.total() for counter in self.statuses.values()),
            "statuses": {protocol: dict(sorted(counter.items())) for protocol, counter in self.statuses.items()},
            "frontend": {
                summary: {"count": count, "example": request[:400]}
                for summary, (count, request) in self.frontend.items()
            },
            "memory": round(self.growth, 4),
            "resident_mb": [round(reading) for reading in self.resident[:: max(1, len(self.resident) // 50)]],
            "wrong": self.wrong,
        }


def _by_frontend(response: Response) -> bool:
    """Whether TorchServe's frontend answered by itself: its types of errors are names of Java exceptions."""
    if any(words in response.reason or words.encode() in response.body for words in _FAILED):
        return False
    if response.status == 0:
        return True
    try:
        content = json.loads(response.body)
    except ValueError:
        return response.status > 0
    return isinstance(content, dict) and str(content.get("type", "")).endswith("Exception")


def _summary(response: Response) -> str:
    try:
        content = json.loads(response.body)
        return f"{content['type']}: {str(content['message'])[:90]}"
    except (ValueError, KeyError, TypeError):
        return (response.reason or repr(response.body))[:120]
