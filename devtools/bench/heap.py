"""The cost and the saving of fixed thresholds of glibc's heap: `scripts/bench heap`.

Interleaved processes have a worker's heap as `serving.heap` sets it, and as glibc adapts it by itself. Each measures
the median processor time of a prediction, a Grad-CAM row and a pass of noisy copies. Two more measure resident memory
over many requests, good and refused ones, through the service in process.
"""

from __future__ import annotations

import ctypes
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import torch
import torchvision

from devtools.bench import archives, children, in_process, soak
from devtools.bench.networks import NETWORKS, images
from devtools.bench.rounds import ratio
from devtools.fuzz import pictures
from devtools.growth import settled_and_end
from heatserve import Explainer, Query
from heatserve.serving.heap import Heap
from heatserve_tools.demo.photographs import photographs

FIXED, OWN = "fixed", "own"
BUILD: Mapping[str, Callable[[], torch.nn.Module]] = {
    **{name: network.build for name, network in NETWORKS.items()},
    "mobilenet_v2": torchvision.models.mobilenet_v2,
}
#: The bytes of every tenth request, which is refused.
LARGE = 9_000_000


@click.command()
@click.option("--rounds", default=8, show_default=True, help="Processes of each kind for the costs.")
@click.option("--requests", "count", default=2000, show_default=True, help="Requests for the memory.")
@click.option("--network", "names", multiple=True, default=tuple(BUILD), show_default=True)
def main(rounds: int, count: int, names: tuple[str, ...]) -> None:
    """The heap's settings against glibc's own."""
    for name in names:
        found: dict[str, list[dict[str, float]]] = {FIXED: [], OWN: []}
        for _ in range(rounds):
            for kind, costs in found.items():
                costs += children.run("devtools.bench.heap", "cost", kind, name)
        for work in found[FIXED][0]:
            fixed, own = ([each[work] for each in found[kind]] for kind in (FIXED, OWN))
            compared = ratio(fixed, own)
            interval = f"{compared.median:.3f} ({compared.low:.3f} to {compared.high:.3f})"
            click.echo(f"{name}, {work}: {interval} × glibc's own {statistics.median(own):.1f} ms")
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        archive = archives.ours(Path(scratch))
        for kind in (FIXED, OWN) if count else ():
            readings = [*children.run("devtools.bench.heap", "memory", kind, archive, count)]
            settled, end = settled_and_end([reading["resident"] for reading in readings])
            click.echo(
                f"{count} requests, {kind}: {end / settled:.3f} × the {settled:.0f} MB after a fifth of them, "
                f"highest {readings[-1]['highest']:.0f} MB; {readings[-1]}"
            )


def cost(kind: str, name: str) -> Iterator[dict[str, float]]:
    """The child: processor time in ms."""
    inputs = images(1)
    explainer = Explainer(BUILD[name](), inputs, optimize=True)
    gc.disable()
    if kind == FIXED:
        Heap().settle()
    actions: dict[str, Callable[[], object]] = {
        "prediction": lambda: explainer.run(inputs, [[]]),
        "Grad-CAM": lambda: explainer.run(inputs, [[Query("gradcam")]]),
        "SmoothGrad, a pass": lambda: explainer.explain(inputs, Query("smoothgrad", samples=explainer.chunk)),
    }
    for action in actions.values():
        action()
    yield {work: statistics.median(_milliseconds(action) for _ in range(15)) for work, action in actions.items()}


def _milliseconds(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return 1000 * (time.process_time() - started)


def memory(kind: str, archive: Path, count: int) -> Iterator[dict[str, float]]:
    """The child: MB after each request. With `own` the garbage collector keeps its default too."""
    good = [*photographs().values()]
    with in_process.serving(archive) as service:
        heap = Heap()
        if kind == FIXED:
            heap.settle()
        for index in range(count):
            chosen = random.Random(index)
            turn = soak.TURN[index % len(soak.TURN)] if index % 10 == 5 else {"method": "gradcam"}
            picture = (
                bytes(LARGE) if index % 10 == 0 else pictures.any_picture(chosen) if index % 2 else chosen.choice(good)
            )
            in_process.answer(service, picture, turn)
            if kind == FIXED:
                heap.trim_when_idle()
            figures = {"resident": children.status("VmRSS") / 1e6, "highest": children.status("VmHWM") / 1e6}
            yield {**figures, **_of_glibc()}


class _Figures(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]


def _of_glibc() -> dict[str, float]:
    """The heap's own figures, in MB."""
    asked = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if asked is None:
        return {}
    asked.restype = _Figures
    figures = asked()
    return {name: getattr(figures, name) / 1e6 for name in ("arena", "hblkhd", "uordblks", "fordblks", "keepcost")}


def child(measurement: str, kind: str, *arguments: Any) -> None:
    torch.set_num_threads(1)
    found = cost(kind, arguments[0]) if measurement == "cost" else memory(kind, Path(arguments[0]), int(arguments[1]))
    for line in found:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] in (["cost"], ["memory"]):
        child(*sys.argv[1:])
    else:
        main(prog_name="scripts/bench heap")
