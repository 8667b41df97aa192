"""What an explanation costs beside a plain forward pass of the same network without hooks, here and elsewhere."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from devtools.bench.networks import NETWORKS, images
from devtools.bench.results import Result
from devtools.bench.rounds import Measure, Seen, interleave, ratio, timed
from heatserve import Explainer, Query

LIMIT = 1.15
BATCHES = (1, 8)
FORWARD = "forward"


def measure(name: str, batch: int, seconds: float, rounds: int, seen: Seen) -> list[Result]:
    """Each contestant against the forward pass; every one has a copy of the network, so that no hook is shared."""
    network = NETWORKS[name]
    model, inputs = network.build(), images(batch)
    # Peers last: what they leave in the allocator is theirs, and the next round's forward comes after it for all.
    contestants = {FORWARD: timed(forward(deepcopy(model), inputs)), **_ours(deepcopy(model), inputs)}
    if batch == 1:
        contestants |= {peer: timed(build(deepcopy(model), network.layer, inputs)) for peer, build in PEERS.items()}
    found = interleave(contestants, seconds, least=rounds, seen=seen)
    medians = {what: round(1000 * statistics.median(values), 3) for what, values in found.items()}
    return [
        Result.of(
            f"{what}: {name}, batch {batch}, against a plain forward pass",
            ratio(values, found[FORWARD]),
            LIMIT if what in ("Grad-CAM", "CAM") else None,
            median_ms=medians[what],
            forward_median_ms=medians[FORWARD],
        )
        for what, values in found.items()
        if what != FORWARD
    ]


def forward(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """What a plain prediction costs with nothing of ours around it."""

    def run() -> Tensor:
        with torch.inference_mode():
            output: Tensor = model(inputs)
        return output

    return run


def _ours(model: nn.Module, inputs: Tensor) -> dict[str, Measure]:
    explainer = Explainer(model, inputs)

    def asking(*queries: Query) -> Measure:
        return timed(lambda: explainer.run(inputs, [list(queries)] * len(inputs)))

    return {
        "prediction with idle hooks": asking(),
        "Grad-CAM": asking(Query("gradcam")),
        "CAM": asking(Query("cam")),
    }


def _captum(model: nn.Module, layer: str, inputs: Tensor) -> Callable[[], object]:
    from captum.attr import LayerGradCam

    method = LayerGradCam(model, model.get_submodule(layer))

    def run() -> object:
        with torch.inference_mode():
            target = int(model(inputs).argmax(1))
        return method.attribute(inputs, target=target, relu_attributions=True)

    return run


def _pytorch_grad_cam(model: nn.Module, layer: str, inputs: Tensor) -> Callable[[], object]:
    from pytorch_grad_cam import GradCAM

    method = GradCAM(model=model, target_layers=[model.get_submodule(layer)])
    return lambda: method(input_tensor=inputs, targets=None)


def _torch_cam(model: nn.Module, layer: str, inputs: Tensor) -> Callable[[], object]:
    from torchcam.methods import GradCAM

    method = GradCAM(model, target_layer=layer)

    def run() -> object:
        scores = model(inputs)
        return method(int(scores.argmax(1)), scores)

    return run


#: Each as its documentation uses it: the prediction, then the map of the class predicted.
PEERS = {
    "Captum LayerGradCam": _captum,
    "pytorch-grad-cam GradCAM": _pytorch_grad_cam,
    "torch-cam GradCAM": _torch_cam,
}
