"""The command `scripts/fuzz`."""

from __future__ import annotations

import io
import json
import random
import sys
import threading
import traceback
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import psutil
import requests
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devtools.agreement import KINK, distance
from devtools.fuzz import bodies, cost
from devtools.fuzz.senders import DOORS, SILENCE, Reply, Sender
from devtools.growth import settled_and_end
from devtools.grpc_client import GrpcClient
from heatserve_tools.demo import lite0
from heatserve_tools.torchserve.server import Server

#: What the handler may answer.
RIGHT = frozenset({200, 400, 404, 405, 406, 411, 413, 415})
THREADS = 4
#: Enough to be hostile with, and soon done.
CONFIG = {
    "batchSize": 8,
    "maxBatchDelay": 10,
    "preprocess": {"resize": bodies.SIDE + 8, "crop": bodies.SIDE},
    "explain": {"max_samples": 20, "max_pixels": 10_000_000},
}
_GROWTH = 1.10


@dataclass
class Findings:
    """What was seen, by door."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    #: Answers of the frontend's own that are not right ones, each with one request that did it.
    frontend: dict[str, tuple[int, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)

    def take(self, door: str, reply: Reply) -> None:
        self.statuses[door][reply.status] += 1
        if reply.status in RIGHT:
            return
        if _by_frontend(reply):
            key = f"{reply.status} {_summary(reply)}"
            count, asked = self.frontend.get(key, (0, f"{door}: {reply.asked}"))
            self.frontend[key] = (count + 1, asked)
        else:
            self.wrong.append(f"{door}: {reply.status} {reply.body[:300]!r} {reply.said} for {reply.asked[:600]}")


@click.command()
@click.option("--requests", "count", default=10_000, show_default=True, help="Hostile requests, over all doors alike.")
@click.option("--continuous", is_flag=True, help="To an archive in continuous batching.")
@click.option("--seed", default=0, show_default=True, help="Another seed sends other requests.")
@click.option("--door", "only", multiple=True, type=click.Choice([*DOORS]), help="This door alone; may be repeated.")
@click.option("--cost", "costly", is_flag=True, help="Search for the dearest pictures instead; starts no server.")
@click.option("--seconds", default=300.0, show_default=True, help="With --cost: how long to search.")
@click.option(
    "--slack",
    type=click.FloatRange(min=1.0),
    default=1.0,
    show_default=True,
    help="With --cost: fail above the bounds times this, where decoders compare otherwise than on the table's machine.",
)
@click.option("--table", "measures", is_flag=True, help="With --cost: measure the decoders' table of costs instead.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings here as JSON.")
def main(
    count: int,
    continuous: bool,
    seed: int,
    only: tuple[str, ...],
    costly: bool,
    slack: float,
    seconds: float,
    measures: bool,
    output: Path | None,
) -> None:
    """Send hostile requests to a real TorchServe, with a good request beside each of them.

    Fails where the handler answered anything but 200, 400, 404, 405, 406, 411, 413 or 415, where a good request got a
    wrong answer, where the worker was started again, where its memory grew, or where a line of its log was forged.
    What the frontend answers by itself is listed with a request that did it.

    With --cost: makes pictures of all formats that are meant to take much CPU time and memory to decode, changes the
    dearest of them, and fails where one takes more than the bounds that docs/security.md states.
    """
    console = Console(highlight=False)
    if costly:
        sys.exit(cost.measure_table(console) if measures else cost.search(console, seconds, seed, output, slack))
    doors = only or tuple(DOORS)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
    findings = Findings()
    try:
        with (
            TemporaryDirectory(prefix="heatserve-fuzz-") as scratch,
            Progress(*columns, console=console) as progress,
            _server(Path(scratch), continuous) as server,
        ):
            task = progress.add_task("hostile requests", total=count)
            _attack(server, doors, count, seed, findings, lambda: progress.advance(task))
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)
    _show(console, findings)
    if output:
        output.write_text(json.dumps(_as_json(findings, continuous), indent=1) + "\n", encoding="utf-8")
    if findings.wrong:
        raise click.ClickException(f"{len(findings.wrong)} findings")


def _server(folder: Path, continuous: bool) -> Server:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    archive = lite0.build(folder, "lite0", config, continuous=continuous).path
    # The frontend's own limit: what the handler sends must stay below it.
    return Server({"lite0": archive}, {"max_request_size": "10485760", "max_response_size": "6553500"})


def _attack(server: Server, doors: tuple[str, ...], count: int, seed: int, findings: Findings, seen: Any) -> None:
    worker = psutil.Process(server.worker_pids("lite0")[0])
    good = _Good(server)
    lock = threading.Lock()

    def one(index: int) -> None:
        chosen = random.Random(seed * 1_000_003 + index)
        door = doors[index % len(doors)]
        with ThreadPoolExecutor(1) as beside:
            asked = beside.submit(good.ask, index)
            try:
                reply = DOORS[door](Sender(server, "lite0", client), chosen)
            except SILENCE as error:
                reply = Reply(-1, b"", f"request {index} of seed {seed}", f"no answer: {error!r}")
            except Exception:
                reply = Reply(-2, b"", f"request {index} of seed {seed}", traceback.format_exc())
            fault = asked.result()
        with lock:
            findings.take(door, reply)
            if fault:
                findings.wrong.append(f"the good request beside {door} {reply.asked[:500]}: {fault}")
            if index % 20 == 0 and worker.is_running():
                findings.resident.append(worker.memory_info().rss / 1e6)
            seen()

    with GrpcClient(server.grpc_inference) as client, ThreadPoolExecutor(THREADS) as pool:
        try:
            for done in [pool.submit(one, index) for index in range(count)]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if server.worker_pids("lite0") != [worker.pid]:
        findings.wrong.append(f"the worker was started again: {worker.pid} became {server.worker_pids('lite0')}")
    forged = [line for line in server.log().splitlines() if line.lstrip().startswith("[METRICS]forged")]
    text = requests.get(f"{server.metrics}/metrics", timeout=10).text
    if forged or "forged" in text:
        findings.wrong.append(f"a line of the log was forged: {forged[:1]}")
    grown = _growth(findings.resident)
    if count >= 2_000 and grown > _GROWTH:
        findings.wrong.append(f"the worker's memory grew {grown:.2f} times")


class _Good:
    """A request that has a right answer: by turns a prediction and a map, by turns over several doors."""

    def __init__(self, server: Server) -> None:
        self._url = server.inference
        self._image = bodies.good()
        self._prediction = self._predicted()
        self._map = self._mapped()

    def ask(self, index: int) -> str:
        """What is wrong with the answer; "" where nothing is."""
        try:
            if index % 3:
                found = self._predicted()
                same = found.keys() == self._prediction.keys()
                right = same and all(abs(found[k] - self._prediction[k]) < 1e-4 for k in found)
                return "" if right else f"{found} instead of {self._prediction}"
            off = distance(self._mapped(), self._map)
            return "" if off <= KINK else f"the map differs by {off:.3g} of its maximum"
        except Exception as error:
            return repr(error)

    def _predicted(self) -> dict[str, float]:
        found: dict[str, float] = self._post("predictions", {}).json()
        return found

    def _mapped(self) -> Any:
        return np.load(io.BytesIO(self._post("explanations", {"X-Explain-Output": "npy"}).content))

    def _post(self, what: str, headers: dict[str, str]) -> requests.Response:
        every = {"Content-Type": "image/png", **headers}
        response = requests.post(f"{self._url}/{what}/lite0", data=self._image, headers=every, timeout=120)
        response.raise_for_status()
        return response


#: What TorchServe says where the handler or its worker failed: nothing that the frontend answered by itself.
_FAILED = ("Worker died", "Prediction failed", "Out of resources", "batch response mismatched", "model predict output")


def _by_frontend(reply: Reply) -> bool:
    """Whether TorchServe's frontend answered by itself: its types of errors are names of Java exceptions."""
    if any(words in reply.said or words.encode() in reply.body for words in _FAILED):
        return False
    if reply.status == 0:
        return True
    try:
        said = json.loads(reply.body)
    except ValueError:
        return reply.status > 0
    return isinstance(said, dict) and str(said.get("type", "")).endswith("Exception")


def _summary(reply: Reply) -> str:
    try:
        said = json.loads(reply.body)
        return f"{said['type']}: {str(said['message'])[:90]}"
    except (ValueError, KeyError, TypeError):
        return (reply.said or repr(reply.body))[:120]


def _growth(resident: list[float]) -> float:
    """The end against what it was after a fifth of the time."""
    settled, end = settled_and_end(resident or [1.0])
    return end / settled


def _show(console: Console, findings: Findings) -> None:
    statuses = sorted({status for counter in findings.statuses.values() for status in counter})
    table = Table("door", *map(str, statuses), title="answers by status (0: the gRPC call failed, -1: no answer)")
    for door, counter in findings.statuses.items():
        table.add_row(door, *(str(counter[status] or "") for status in statuses))
    console.print(table)
    for summary, (count, asked) in findings.frontend.items():
        console.print(f"[yellow]the frontend itself[/] {count} x {summary}\n    for example {asked[:300]}", markup=True)
    console.print(f"memory of the worker: {_growth(findings.resident):.3f} times, the end against after a fifth")
    for fault in findings.wrong[:20]:
        console.print(f"WRONG {fault}", style="red", markup=False)


def _as_json(findings: Findings, continuous: bool) -> dict[str, Any]:
    return {
        "mode": "continuous" if continuous else "ordinary",
        "requests": sum(counter.total() for counter in findings.statuses.values()),
        "statuses": {door: dict(sorted(counter.items())) for door, counter in findings.statuses.items()},
        "frontend": {
            summary: {"count": n, "example": asked[:400]} for summary, (n, asked) in findings.frontend.items()
        },
        "memory": round(_growth(findings.resident), 4),
        "resident_mb": [round(reading) for reading in findings.resident[:: max(1, len(findings.resident) // 50)]],
        "wrong": findings.wrong,
    }


if __name__ == "__main__":
    main(prog_name="scripts/fuzz")
