"""The memory that packed convolutions take beyond the weights themselves."""

from __future__ import annotations

import ctypes
import gc
import json
import sys

import torch

from devtools.bench import children
from devtools.bench.networks import NETWORKS, images
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, ratio
from heatserve import Explainer
from heatserve.serving.heap import Heap

MB = 1e6
#: Of the weights alone.
LIMIT = 2.0


def measure(name: str, threads: int, rounds: int, progress: Progress) -> list[Result]:
    """The weights of a network with their packed forms, against the weights alone: in fresh processes, interleaved.

    The weights alone are counted by their elements. Beyond them counts the resident memory that `close()` frees, after
    a pass with a gradient. The details have what oneDNN keeps for the kernels that it made: the memory that stays then,
    beyond that of a process with `optimize: folded`.
    """
    found: dict[str, list[dict[str, float]]] = {"true": [], "packed": [], "folded": []}
    for done in range(rounds):
        for how, values in found.items():
            values.extend(children.run("devtools.bench.packed_memory", name, how, threads))
        progress((done + 1) / rounds)
    weights = [one["weights"] for one in found["folded"]]

    def row(how: str, limit: float | None) -> Result:
        held = [one["weights"] + one["ready"] - one["closed"] for one in found[how]]
        kernels = [one["closed"] - other["closed"] for one, other in zip(found[how], found["folded"])]
        return Result.of(
            f"packed convolutions, optimize: {how}, memory of weights: {name}, against the weights alone",
            ratio(held, weights),
            limit,
            weights_mb=[value / MB for value in weights],
            held_mb=[value / MB for value in held],
            kernels_mb=[value / MB for value in kernels],
            packed=found[how][0]["packed"],
        )

    return [row("true", LIMIT), row("packed", None)]


def main(name: str, how: str, threads: int) -> None:
    """The child: prints the bytes of a network's weights, and the resident memory while it is ready and closed."""
    torch.set_num_threads(threads)
    Heap().settle()
    model = NETWORKS[name].build()
    explainer = Explainer(model, images(1), optimize=how == "true" or how)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    leaf = images(1).requires_grad_()
    torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    ready = _resident()
    explainer.close()
    found = {"weights": weights, "ready": ready, "closed": _resident(), "packed": explainer.optimized.packed}
    print(json.dumps(found))


def _resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return children.status("RssAnon")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
