"""The growth of a process's memory over thousands of explanations."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from devtools.bench import archives, children, in_process
from devtools.bench.results import Result
from devtools.bench.rounds import Progress
from heatserve_tools.demo.photographs import photographs

GROWTH = 1.01
SETTLED = 100
MEMORIES = {"VmRSS": "resident memory", "RssAnon": "resident memory that mirrors no file"}
#: The readings of a median. Single readings vary with the allocator, which is no leak.
WINDOW = 20
#: The options of one turn of requests: Grad-CAM mostly, as from users, and every method at least once.
TURN: tuple[dict[str, str], ...] = (
    *({"method": "gradcam"},) * 8,
    *({"method": "gradcam", "overlay": "true", "boxes": "true"},) * 3,
    {"method": "gradcam", "target": "top3"},
    {"method": "gradcam", "output": "png"},
    {"method": "gradcam", "samples": "4"},
    {"method": "cam"},
    {"method": "cam", "output": "npy"},
    {"method": "gradient"},
    {"method": "smoothgrad", "samples": "4"},
    {"method": "smoothgrad_squared", "samples": "3"},
    {"method": "vargrad", "samples": "5"},
)


def measure(count: int, threads: int, progress: Progress) -> list[Result]:
    """Resident memory at the end against that after the first hundred, in a process of its own.

    Measured are all of it, and the part that mirrors no file: the system may drop the other pages at any time.
    """
    readings: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch:
        archive = archives.ours(Path(scratch))
        for reading in children.run("devtools.bench.soak", archive, count, threads):
            readings.append(reading)
            progress(len(readings) / count)
    return [_growth(name, [reading[kind] for reading in readings]) for kind, name in MEMORIES.items()]


def _growth(name: str, resident: list[int]) -> Result:
    settled = statistics.median(resident[SETTLED - WINDOW // 2 : SETTLED + WINDOW // 2])
    end = statistics.median(resident[-WINDOW:])
    return Result(
        f"{len(resident)} explanations: {name} at the end against after {SETTLED}",
        end / settled,
        limit=GROWTH,
        detail={
            "settled_mb": settled / 1e6,
            "end_mb": end / 1e6,
            "every_50th_mb": [round(reading / 1e6, 1) for reading in resident[49::50]],
        },
    )


def main(archive: Path, count: int, threads: int) -> None:
    """The child: explains in this process, and prints its resident memory after each explanation."""
    torch.set_num_threads(threads)
    pictures = list(photographs().values())
    with in_process.serving(archive) as service:
        for index in range(count):
            options = TURN[index % len(TURN)]
            answered = in_process.answer(service, pictures[index % len(pictures)], options)
            if answered.status != 200:
                raise SystemExit(f"{options}: {answered.status} {answered.body!r}")
            print(json.dumps({name: children.status(name) for name in MEMORIES}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
