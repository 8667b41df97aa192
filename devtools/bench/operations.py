"""The operations of torch that take the time of a prediction, a gradient and a SmoothGrad, as shares of the whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

import torch

from devtools.bench.networks import NETWORKS, images
from devtools.bench.results import Result
from devtools.bench.rounds import Progress
from heatserve import Explainer, Query

PASSES = 20
BATCHES = (1, 8)
SAMPLES = 12
#: Parts of the names of operations, by kind; the first kind that fits counts.
KINDS: Mapping[str, tuple[str, ...]] = {
    "convolutions": ("conv",),
    "matrix products": ("mm", "linear", "dot"),
    "pooling": ("pool", "mean"),
    "copies and layouts": ("copy", "clone", "contiguous", "cat", "to_dense", "reorder"),
    "random numbers": ("normal", "random", "uniform"),
    "normalisation": ("norm",),
    "elementwise": ("add", "mul", "sub", "div", "relu", "clamp", "hardtanh", "threshold", "sigmoid", "silu", "sqrt"),
}
#: Other operations, and the time of the calls outside all of them.
OTHER, OUTSIDE = "other operations", "outside operations"


def measure(progress: Progress, passes: int = PASSES) -> list[Result]:
    """The shares of each network and kind of request."""
    found: list[Result] = []
    for number, name in enumerate(NETWORKS):
        for what, action in _actions(name).items():
            shares = of(action, passes)
            for kind, share in shares.most_common():
                found.append(Result(f"{what}, time of {kind}: {name}, of all", share, "%"))
        progress((number + 1) / len(NETWORKS))
    return found


def _actions(name: str) -> dict[str, Callable[[], object]]:
    explainer = Explainer(NETWORKS[name].build(), images(1), optimize=True)
    actions: dict[str, Callable[[], object]] = {}
    for batch in BATCHES:
        inputs = images(batch)
        for label, asked in {"prediction": [], "Grad-CAM": [Query("gradcam")], "gradient": [Query("gradient")]}.items():
            queries: list[list[Query]] = [list(asked)] * batch
            actions[f"{label}, batch {batch}"] = lambda i=inputs, q=queries: explainer.run(i, q)
    image, query = images(1)[0], Query("smoothgrad", target=0, samples=SAMPLES)
    actions[f"SmoothGrad n = {SAMPLES}"] = lambda: [*explainer.smooth(image, query)]
    return actions


def of(action: Callable[[], object], passes: int) -> Counter[str]:
    """The percentages of an action's time by kind of operation, over so many calls. They add up to 100."""
    action()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        started = time.perf_counter()
        for _ in range(passes):
            action()
        seconds = time.perf_counter() - started
    spent: Counter[str] = Counter()
    for event in profile.key_averages():
        spent[kind(event.key)] += event.self_cpu_time_total / 1e6
    spent[OUTSIDE] = max(seconds - spent.total(), 0.0)
    whole = spent.total()
    return Counter({each: 100 * share / whole for each, share in spent.items()})


def kind(operation: str) -> str:
    """The kind of an operation by its name, such as `aten::add_`."""
    name = operation.split("::")[-1].lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), OTHER)
