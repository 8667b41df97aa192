"""The memory of SmoothGrad as its samples grow, and that of a Grad-CAM row beyond its prediction."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from devtools.bench import children
from devtools.bench.library import PEERS, forward
from devtools.bench.networks import NETWORKS, images
from devtools.bench.results import Result
from devtools.bench.rounds import Progress, ratio
from heatserve import Explainer, Query
from heatserve.serving.heap import Heap

GROWTH = 1.02
MB = 1e6


def smoothgrad(samples: Sequence[int], threads: int, rounds: int, progress: Progress) -> list[Result]:
    """The peak memory of explaining one lite0 image with n samples, against that with the first n.

    The rounds are interleaved, with a fresh process for each number: the resident memory of equal processes differs by
    some percent. There are two counts. One is of the tensors that live at one time. The other is the process's resident
    memory, in which the C library keeps freed memory; its heap is set as a worker sets it. Linux keeps the high-water
    mark of resident memory (VmHWM), so no peak is missed.
    """
    peaks: dict[tuple[str, int], list[float]] = {}
    for done in range(rounds):
        for count in samples:
            (peak,) = children.run("devtools.bench.memory", count, threads)
            for kind, value in peak.items():
                peaks.setdefault((kind, count), []).append(value / MB)
        progress((done + 1) / rounds)
    return [
        Result.of(
            f"SmoothGrad, peak {name}: {count} samples against {samples[0]} (lite0)",
            ratio(peaks[kind, count], peaks[kind, samples[0]]),
            GROWTH,
            peak_mb=peaks[kind, count],
            first_peak_mb=peaks[kind, samples[0]],
        )
        for kind, name in (("tensors", "memory of tensors"), ("resident", "resident memory"))
        for count in samples[1:]
    ]


def gradcam_row(progress: Progress) -> list[Result]:
    """The bytes that a Grad-CAM row allocates at its peak beyond those of its prediction (the allocator's count).

    The peers' bytes are in the details. They are 0 where the peak lies in the trunk, before anything is recorded.
    """
    found = []
    for index, (name, network) in enumerate(NETWORKS.items()):
        inputs = images(1)
        explainer = Explainer(network.build(), inputs)
        plain = _warm_peak(forward(network.build(), inputs))
        ours = _warm_peak(lambda e=explainer, x=inputs: e.run(x, [[Query("gradcam")]]))
        peers = {
            peer: (_warm_peak(build(network.build(), network.layer, inputs)) - plain) / MB
            for peer, build in PEERS.items()
        }
        found.append(
            Result(
                f"Grad-CAM, peak memory of tensors for a row beyond its prediction's own: {name}",
                (ours - plain) / MB,
                "MB",
                detail={"prediction_mb": plain / MB, "gradcam_mb": ours / MB, "peers_beyond_mb": peers},
            )
        )
        progress((index + 1) / len(NETWORKS))
    return found


def peak_bytes(action: Callable[[], object]) -> int:
    """The most bytes that torch's CPU allocator held for an action at one time, by its own events."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return int(peak)


def _warm_peak(action: Callable[[], object]) -> int:
    action()
    return peak_bytes(action)


def main(samples: int, threads: int) -> None:
    """The child: explains twice; prints the highest resident memory of the first time, the tensors of the second."""
    torch.set_num_threads(threads)
    inputs = images(1)
    explainer = Explainer(NETWORKS["lite0"].build(), inputs)

    def explain() -> object:
        return explainer.explain(inputs, Query("smoothgrad", samples=samples))

    Heap().settle()
    _reset_high_water_mark()
    explain()
    resident = children.status("VmHWM")
    print(json.dumps({"resident": resident, "tensors": peak_bytes(explain)}))


def _reset_high_water_mark() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
