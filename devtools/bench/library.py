"""The time of an explanation, against a plain forward pass, a prediction of the same network and other libraries."""

from __future__ import annotations

import statistics
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from devtools.bench.networks import NETWORKS, images
from devtools.bench.results import Result
from devtools.bench.rounds import Action, Progress, interleave, ratio, timed
from heatserve import Explainer, Query

BATCHES = (1, 8)
FORWARD = "forward"
PREDICTION = "prediction"
SALIENCY = "Captum Saliency"
#: The limits that are asked, in predictions of the same network.
IN_PREDICTIONS = {"Grad-CAM": 1.05, "CAM": 1.02, "Grad-CAM of the top 5": 1.10}
#: The limits of a gradient against Captum's, by the batch's size.
AGAINST_SALIENCY = {1: 0.80, 8: 0.72}
#: The limits of a prediction in plain forward passes of the network as it is, by the network and the batch.
PREDICTIONS_IN_FORWARDS = {("resnet50", 1): 0.80, ("resnet50", 8): 0.72}
#: Six maps of one score share its gradient; the limit is in plain forward passes.
CAMS = ("gradcam", "hirescam", "layercam", "gradcam_plus_plus", "xgradcam", "eigencam")
SIX_CAMS, IN_FORWARDS = "six class activation maps", 1.3
AS_IT_IS, PACKED = ", optimize: false", ", optimize: packed"
CHUNKS = (1, 2, 4, 8, 16)


def measure(name: str, batch: int, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """All contestants in turn. Every one has a copy of the network, so that they share no hook.

    Ours run on a network that is made faster at load, as an archive's is, and on one as it is (`AS_IT_IS`); predictions
    and gradients also on one whose convolutions are packed for every use (`PACKED`).
    """
    network = NETWORKS[name]
    model, inputs = network.build(), images(batch)
    as_it_is = ours(Explainer(deepcopy(model), inputs), inputs)
    packed = ours(Explainer(deepcopy(model), inputs, optimize="packed"), inputs)
    actions = {
        FORWARD: forward(deepcopy(model), inputs),
        **ours(Explainer(deepcopy(model), inputs, optimize=True), inputs),
        **{label + AS_IT_IS: action for label, action in as_it_is.items()},
        **{label + PACKED: packed[label] for label in (PREDICTION, "gradient")},
        # Last: the memory that they leave to the allocator is theirs, and the next forward pass follows for everybody.
        **peers(model, network.layer, inputs),
    }
    contestants = {label: timed(action) for label, action in actions.items()}
    found = interleave(contestants, seconds, least=rounds, progress=progress)
    medians = {label: round(1000 * statistics.median(values), 3) for label, values in found.items()}
    where = f"{name}, batch {batch}"

    def against(label: str, other: str, said: str, limit: float | None = None) -> Result:
        times = ratio(found[label], found[other])
        return Result.of(
            f"{label}: {where}, against {said}",
            times,
            limit,
            median_ms=medians[label],
            other_median_ms=medians[other],
        )

    in_forwards = {SIX_CAMS: IN_FORWARDS, PREDICTION: PREDICTIONS_IN_FORWARDS.get((name, batch))}
    in_predictions = [
        against(label + how, PREDICTION + how, "a prediction of the same network", limit)
        for how in ("", AS_IT_IS)
        for label, limit in IN_PREDICTIONS.items()
    ]
    return [
        *in_predictions,
        against("gradient", SALIENCY, SALIENCY, AGAINST_SALIENCY.get(batch)),
        *(
            against(label, FORWARD, "a plain forward pass", in_forwards.get(label))
            for label in contestants
            if label != FORWARD
        ),
    ]


def chunks(name: str, seconds: float, rounds: int, progress: Progress) -> list[Result]:
    """The time of a noisy copy, by the number of copies that share a forward pass. The default was chosen by it."""
    inputs = images(1)
    explainer = Explainer(NETWORKS[name].build(), inputs, optimize=True)
    query = Query("smoothgrad", target=0, samples=max(CHUNKS))

    def smoothing(chunk: int) -> Action:
        def run() -> object:
            explainer.chunk = chunk
            return [*explainer.smooth(inputs[0], query)]

        return run

    found = interleave(
        {str(chunk): timed(smoothing(chunk)) for chunk in CHUNKS}, seconds, least=rounds, progress=progress
    )
    return [
        Result.of(
            f"SmoothGrad, {chunk} noisy copies in a pass: {name}, against 4", ratio(found[str(chunk)], found["4"])
        )
        for chunk in CHUNKS
        if chunk != 4
    ]


def forward(model: nn.Module, inputs: Tensor) -> Action:
    """A plain prediction with nothing of ours around it."""

    def run() -> Tensor:
        with torch.inference_mode():
            output: Tensor = model(inputs)
        return output

    return run


def ours(explainer: Explainer, inputs: Tensor) -> dict[str, Action]:
    """Explanations that take one pass or two, by name: for every row of the inputs."""
    queries: dict[str, list[Query]] = {
        PREDICTION: [],
        "Grad-CAM": [Query("gradcam")],
        "CAM": [Query("cam")],
        "Grad-CAM of the top 5": [Query("gradcam", rank=rank) for rank in range(5)],
        SIX_CAMS: [Query(method) for method in CAMS],
        "gradient": [Query("gradient")],
    }
    return {label: partial(explainer.run, inputs, [asked] * len(inputs)) for label, asked in queries.items()}


def peers(model: nn.Module, layer: str, inputs: Tensor) -> dict[str, Action]:
    """The same of other libraries, each with a copy of the model; for a batch of one also those that take one image.

    layer: the module before the pooling.
    """
    found = {
        SALIENCY: _saliency(deepcopy(model), inputs),
        "zennit Gradient": _zennit(deepcopy(model), inputs),
    }
    if len(inputs) == 1:
        found |= {peer: build(deepcopy(model), layer, inputs) for peer, build in PEERS.items()}
    return found


def _saliency(model: nn.Module, inputs: Tensor) -> Action:
    from captum.attr import Saliency

    # As ours: no gradient for the weights. The target is given, which spares it the pass that finds it.
    method = Saliency(model.requires_grad_(False))
    return lambda: method.attribute(inputs.clone().requires_grad_(), target=0, abs=False)


def _zennit(model: nn.Module, inputs: Tensor) -> Action:
    from zennit.attribution import Gradient

    method = Gradient(model.requires_grad_(False))
    # The output is multiplied by this: the score of one class.
    return lambda: method(inputs, lambda output: torch.eye(output.shape[1], device=output.device)[[0] * len(output)])


def _captum(model: nn.Module, layer: str, inputs: Tensor) -> Action:
    from captum.attr import LayerGradCam

    method = LayerGradCam(model, model.get_submodule(layer))

    def run() -> object:
        with torch.inference_mode():
            target = int(model(inputs).argmax(1))
        return method.attribute(inputs, target=target, relu_attributions=True)

    return run


def _pytorch_grad_cam(model: nn.Module, layer: str, inputs: Tensor) -> Action:
    from pytorch_grad_cam import GradCAM

    method = GradCAM(model=model, target_layers=[model.get_submodule(layer)])
    return lambda: method(input_tensor=inputs, targets=None)


def _torch_cam(model: nn.Module, layer: str, inputs: Tensor) -> Action:
    from torchcam.methods import GradCAM

    method = GradCAM(model, target_layer=layer)

    def run() -> object:
        scores = model(inputs)
        return method(int(scores.argmax(1)), scores)

    return run


#: Each as its documentation uses it: the prediction, then the map of the predicted class.
PEERS = {
    "Captum LayerGradCam": _captum,
    "pytorch-grad-cam GradCAM": _pytorch_grad_cam,
    "torch-cam GradCAM": _torch_cam,
}
