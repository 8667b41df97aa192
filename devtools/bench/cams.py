"""The time of six class activation maps of one picture, against a plain forward pass and a prediction."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial

import torch
from torch import nn

from devtools.bench import networks
from devtools.bench.library import AS_IT_IS, CAMS, FORWARD, IN_FORWARDS, PREDICTION, SIX_CAMS, forward
from devtools.bench.results import Result
from devtools.bench.rounds import Action, Progress, interleave, ratio, timed
from heatserve import Explainer, Query

#: One map alone, and the map that takes no backward pass: they show where the time of the six goes.
PARTS: Mapping[str, tuple[str, ...]] = {
    PREDICTION: (),
    "Grad-CAM": ("gradcam",),
    "Eigen-CAM": ("eigencam",),
    SIX_CAMS: CAMS,
}


def _of_torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    torch.manual_seed(0)
    model: nn.Module = get_model(name, weights=None)
    return model.eval()


#: The first two end in a linear head, whose gradient is known. The last two convolutional ones have a backward pass
#: through several linear layers. The transformer's goes through its last block.
NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "lite0": networks.NETWORKS["lite0"].build,
    "resnet50": networks.NETWORKS["resnet50"].build,
    "mobilenet_v3_large": partial(_of_torchvision, "mobilenet_v3_large"),
    "vgg16": partial(_of_torchvision, "vgg16"),
    "vit_b_16": partial(_of_torchvision, "vit_b_16"),
}


def measure(name: str, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """All contestants in turn, each network in a copy of its own.

    Ours run twice: on a network that is made faster at load, as an archive's is, and on one as it is (`AS_IT_IS`).
    """
    model, inputs = NETWORKS[name](), networks.images(1)
    actions: dict[str, Action] = {FORWARD: forward(deepcopy(model), inputs)}
    for how, optimize in (("", True), (AS_IT_IS, False)):
        explainer = Explainer(deepcopy(model), inputs, optimize=optimize)
        for label, methods in PARTS.items():
            asked = [[Query(method) for method in methods]]
            actions[label + how] = partial(explainer.run, inputs, asked)
    contestants = {label: timed(action) for label, action in actions.items()}
    found = interleave(contestants, seconds, least=rounds, progress=progress)
    medians = {label: round(1000 * statistics.median(values), 3) for label, values in found.items()}

    def against(label: str, other: str, said: str, limit: float | None = None) -> Result:
        return Result.of(
            f"{label}: {name}, against {said}",
            ratio(found[label], found[other]),
            limit,
            median_ms=medians[label],
            other_median_ms=medians[other],
        )

    ways = ("", AS_IT_IS)
    return [
        *(against(SIX_CAMS + how, FORWARD, "a plain forward pass", IN_FORWARDS) for how in ways),
        *(
            against(label + how, PREDICTION + how, "a prediction of the same network")
            for how in ways
            for label in PARTS
            if label != PREDICTION
        ),
    ]
