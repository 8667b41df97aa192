"""The figures that operations and bytes allow on an H100 for ResNet-50, and the share of them that a card reaches.

They are not measurements. A prediction and a Grad-CAM run in TF32, as TorchServe asks for; SmoothGrad runs in bfloat16.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor, nn

from devtools.bench.results import Result
from devtools.bench.rounds import Action, interleave, ratio
from devtools.bench.stopwatch import Stopwatch
from heatserve import Explainer, Query
from heatserve.engine import warm
from heatserve.engine.precision import tensor_float
from heatserve.engine.steps import finish

NETWORK = "resnet50"
BATCHES = (1, 64)
#: Seconds on an H100, for one picture and for 64.
GRADCAM = {1: 0.0008, 64: 64 / 13_000}
SMOOTHGRAD = {1: 0.004, 64: 0.26}


def measure(
    watch: Stopwatch, model: nn.Module, inputs: Tensor, seconds: float, rounds: int, samples: int = 50
) -> list[Result]:
    """Both explanations of so many pictures, eagerly and captured, with their share of the H100's figures.

    inputs: (N, C, H, W), N one of `BATCHES`.
    """
    batch, results = len(inputs), []
    prompt = Explainer(deepcopy(model), inputs[:1], optimize=True)
    actions: dict[str, tuple[Action, float]] = {
        "Grad-CAM, tf32": (lambda: prompt.run(inputs, [[Query(target=0)]] * batch), GRADCAM[batch])
    }
    for label, capture in (("eager", False), ("captured", True)):
        one = Explainer(deepcopy(model), inputs[:1], optimize=True, precision="bfloat16")
        sizes = warm(one, inputs[:1], capture)
        actions[f"SmoothGrad {samples}, bfloat16, {label}"] = smoothgrad(one, inputs, samples), SMOOTHGRAD[batch]
        if capture:
            missing = sorted({*sizes} - {*one.captured.sizes})
            reason = {"not_captured": missing, "reason": one.captured.reason}
            results.append(Result(f"passes captured, batch {batch}", len(one.captured.sizes), "sizes", detail=reason))
    with tensor_float(True):
        found = interleave(
            {label: watch.timed(action) for label, (action, _) in actions.items()}, seconds, least=rounds
        )
    for label, (_, figure) in actions.items():
        taken, middle = ratio(found[label], [0.001] * len(found[label])), statistics.median(found[label])
        what = f"{label}: {NETWORK}, batch {batch}"
        results.append(Result(what, taken.median, "ms", taken.low, taken.high, rounds=taken.rounds))
        detail = {"figure_ms": round(1000 * figure, 3), "pictures_per_second": round(batch / middle, 1)}
        results.append(Result(f"{what}, share of an H100's figure", 100 * figure / middle, "%", detail=detail))
    return results


def smoothgrad(one: Explainer, images: Tensor, samples: int) -> Action:
    """An action that smooths all images together, in passes that are as full as the chunk allows."""
    query = Query("smoothgrad", target=0, samples=samples)

    def action() -> Sequence[Tensor]:
        smoothings = [one.begin(image, query) for image in images]
        while any(smoothing.left for smoothing in smoothings):
            room, shares = one.chunk, []
            for smoothing in smoothings:
                count = min(room, smoothing.left)
                if count:
                    shares.append((smoothing, count))
                    room -= count
            finish(one.advance(shares))
        return [smoothing.estimate().values for smoothing in smoothings]

    return action
