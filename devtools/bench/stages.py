"""The time of the processor that each stage of an answer takes, by size of the photograph and form of the answer.

    python -m devtools.bench.stages [--megapixels 2.5] [--output png]

It runs in one process on one thread, beside no server, and counts that thread's time: other work on the machine
disturbs it little. The network is EfficientNet-Lite0.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import click
import torch

from devtools.bench import archives, in_process
from devtools.bench.megapixels import photograph
from heatserve.serving.contract import Row
from heatserve.serving.heap import Heap
from heatserve.serving.service import Service

MEGAPIXELS = (0.1, 0.8, 2.5, 12.0)
#: The forms by name: the options of an explanation, None for a prediction.
FORMS: Mapping[str, Mapping[str, str] | None] = {
    "prediction": None,
    "npy": {"output": "npy"},
    "json": {},
    "json, overlay": {"overlay": "true"},
    "png": {"output": "png"},
    "webp": {"output": "webp"},
    "jpeg": {"output": "jpeg"},
}
#: A stage is some functions of the product: the end of their file's path and their names. None of them calls another.
STAGES: Mapping[str, tuple[str, Sequence[str]]] = {
    "decode": ("imaging/decode.py", ["decode"]),
    "view": ("imaging/preprocess.py", ["tensor"]),
    "shown": ("imaging/decode.py", ["upright"]),
    "pass": ("serving/passes.py", ["forward", "smooth"]),
    "on_view": ("imaging/geometry.py", ["on_view"]),
    "project": ("imaging/geometry.py", ["on_picture"]),
    "grey": ("imaging/display.py", ["grey", "signed_grey"]),
    "overlay": ("imaging/overlay.py", ["overlay"]),
    "encode": ("imaging/encode.py", ["png_file", "webp_file", "jpeg_file", "npy_file"]),
    "json": ("serving/answers.py", ["json_bytes"]),
}


def stages(service: Service, picture: bytes, options: Mapping[str, str] | None, count: int) -> dict[str, float]:
    """The median milliseconds of each stage over `count` requests, of all others together, and of the whole."""
    taken = [_once(service, picture, options) for _ in range(count + 1)][1:]
    return {stage: median(each[stage] for each in taken) for stage in taken[0]}


def _once(service: Service, picture: bytes, options: Mapping[str, str] | None) -> dict[str, float]:
    row = in_process.asking(picture, options or {})
    if options is None:
        row = Row("one", {"body": picture}, {"Content-Length": "1"})
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    while (reply := service.call([row])).left:
        pass
    profile.disable()
    if reply.answers[row.id].status != 200:
        raise RuntimeError(f"a photograph was refused: {reply.answers[row.id].body!r}")
    found = dict.fromkeys(STAGES, 0.0)
    whole = 0.0
    for (path, _, name), (_, _, _, seconds, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        for stage, (file, functions) in STAGES.items():
            if name in functions and path.endswith(f"heatserve/{file}"):
                found[stage] += 1000 * seconds
        if name == "call" and path.endswith("heatserve/serving/service.py"):
            whole += 1000 * seconds
    return {**found, "others": whole - sum(found.values()), "whole": whole}


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.option("--megapixels", type=float, multiple=True, default=MEGAPIXELS, show_default=True)
@click.option("--output", type=click.Choice(list(FORMS)), multiple=True, default=list(FORMS), show_default=True)
@click.option("--count", default=7, show_default=True, help="Requests of each kind; the medians are printed.")
def main(megapixels: Sequence[float], output: Sequence[str], count: int) -> None:
    torch.set_num_threads(1)
    Heap().settle()
    with (
        tempfile.TemporaryDirectory(prefix="heatserve-bench-") as scratch,
        in_process.serving(archives.ours(Path(scratch))) as service,
    ):
        click.echo("ms of the processor".ljust(22) + "".join(f"{name:>9}" for name in (*STAGES, "others", "whole")))
        for size in megapixels:
            picture = photograph(size)
            for form in output:
                found = stages(service, picture, FORMS[form], count)
                click.echo(f"{size:5g} MP {form:13}" + "".join(f"{ms:9.2f}" for ms in found.values()))


if __name__ == "__main__":
    main(prog_name="python -m devtools.bench.stages")
