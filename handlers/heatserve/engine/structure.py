"""The structure of a network's end: found by tracing one forward pass, not by guessing from names.

Class activation maps need the last activation that still has places, (N, K, h, w). CAM (Zhou 2016) also needs that this
activation is averaged over all places and goes through one linear layer. Both are decided on *values*.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .activation import two_classes
from .errors import UnsuitableModel
from .taps import Layer


@dataclass(frozen=True)
class Head:
    """A head of global average pooling and one linear layer: `logits = weight @ mean(activation) + bias`.

    layer: the name of the pooled layer.
    classifier: the name of the linear module.
    """

    layer: str
    classifier: str


@dataclass(frozen=True)
class Structure:
    """The end of a network, as far as maps need it.

    layer: the layer that maps come from by default; None where it is not clear.
    head: None where the network does not end in global average pooling and one linear layer.
    candidates: other layers that a user could name.
    classes: the number of classes.
    """

    layer: str | None
    head: Head | None
    candidates: tuple[str, ...]
    classes: int


@dataclass(frozen=True)
class _Call:
    """One module's run, reduced to the values that the search needs.

    input_mean, output_mean: over all places, (N, K); None for tensors without places.
    output_relu_mean: of the rectified output; None unless it was asked for.
    spatial: whether the output has places.
    positions: the number of places of the output.
    """

    name: str
    module: nn.Module
    input_mean: Tensor | None
    output_mean: Tensor | None
    output_relu_mean: Tensor | None
    spatial: bool
    positions: int


def trace(model: nn.Module, example: Tensor) -> Structure:
    """The structure of a model, read off one forward pass of `example`, (N, C, H, W).

    Raises UnsuitableModel where the model does not answer with scores (N, classes).
    """
    calls, vectors, logits = _watch(model, example, rectified=False)
    if logits.ndim != 2:
        raise UnsuitableModel(f"the model answers with shape {tuple(logits.shape)}, not (N, classes)")
    head = _head(_once(calls), vectors, logits)
    if head is None:  # few networks need a second pass: for an activation that a function rectifies
        calls, vectors, logits = _watch(model, example, rectified=True)
        head = _head(_once(calls), vectors, logits)
    once = _once(calls)
    candidates = tuple(call.name for call in once if call.spatial and _convolves(call.module))
    layer = head.layer if head else _trunk(calls, once)
    return Structure(layer, head, candidates[-8:], logits.shape[1])


def _once(calls: list[_Call]) -> list[_Call]:
    """The calls of modules that run once."""
    times = Counter(call.name for call in calls)
    return [call for call in calls if times[call.name] == 1 and call.name]


def _watch(
    model: nn.Module, example: Tensor, rectified: bool
) -> tuple[list[_Call], dict[str, tuple[Tensor, Tensor]], Tensor]:
    """The calls of all modules, the inputs and outputs of linear layers by name, and the scores, from one forward pass.

    rectified: whether the means of rectified outputs are wanted as well.
    """
    calls: list[_Call] = []
    vectors: dict[str, tuple[Tensor, Tensor]] = {}

    def before(name: str) -> Any:
        # The mean is taken before the module runs: it may work in place on its input.
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            pending.append(_mean(inputs[0]) if inputs else None)

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            entered = pending.pop()
            if isinstance(module, nn.Linear) and isinstance(output, Tensor) and output.ndim == 2:
                vectors[name] = (inputs[0].clone(), output.clone())
            mean = _mean(output)
            positive = _mean(output.relu()) if rectified and mean is not None else None
            calls.append(_Call(name, module, entered, mean, positive, mean is not None, _positions(output)))

        return hook

    pending: list[Tensor | None] = []
    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(before(name)))
            handles.append(module.register_forward_hook(after(name)))
        with torch.no_grad():
            logits = model(example.clone())
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor):
        raise UnsuitableModel(f"the model answers with a {type(logits).__name__}, not one tensor of class scores")
    return calls, vectors, logits


def _mean(value: Any) -> Tensor | None:
    """The mean over places, (N, K), of an activation with more than one place; None for any other value."""
    if isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] * value.shape[3] > 1:
        return value.mean((2, 3))
    return None


def _positions(value: Any) -> int:
    """The number of places that a row has beside its channels: 1 for a vector."""
    if not isinstance(value, Tensor) or value.ndim < 3:
        return 1
    if value.ndim == 3:
        return int(value.shape[1])
    return int(value.shape[2:].numel())


def _head(once: list[_Call], vectors: dict[str, tuple[Tensor, Tensor]], logits: Tensor) -> Head | None:
    for classifier, (features, output) in reversed(list(vectors.items())):
        if not same(output, logits) and not (output.shape[1] == 1 and same(two_classes(output), logits)):
            continue
        # A module's own output is preferred, then a pooling module's input, then an output that a function rectifies.
        for point in ("output", "input", "relu"):
            for call in reversed(once):
                mean = {"output": call.output_mean, "input": call.input_mean, "relu": call.output_relu_mean}[point]
                if mean is not None and same(mean, features):
                    return Head(str(Layer(call.name, point)), classifier)
    return None


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for rounding, relative to the largest value: activations have any scale."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(part, (nn.Conv2d, nn.modules.conv._ConvNd)) for part in module.modules())


def _trunk(calls: list[_Call], once: list[_Call]) -> str | None:
    """The last convolutional module, if only pooling, elementwise modules and vectors follow it; else None."""
    trunks = [call for call in once if call.spatial and _convolves(call.module)]
    if not trunks or not any(isinstance(call.module, nn.Linear) for call in calls):
        return None
    last = trunks[-1]
    poolings = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.MaxPool2d)
    elementwise = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Dropout, nn.Dropout2d, nn.Identity)
    for call in calls[calls.index(last) + 1 :]:
        inside = bool(call.name) and last.name.startswith(f"{call.name}.")
        plain = isinstance(call.module, (*poolings, *elementwise)) or call.positions == 1 or not call.name
        if not (inside or plain):
            return None
    return last.name
