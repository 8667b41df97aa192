"""The structure of a network's end: found by tracing one forward pass, not by guessing from names.

Class activation maps need the last activation that still has places. CAM (Zhou 2016) also needs that this activation is
averaged over all places and goes through one linear layer. Both are decided on *values*.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .activation import two_classes
from .calls import Watched, watch
from .errors import UnsuitableModel
from .taps import Layer
from .trunk import convolves, ends_in_tokens, first_norms, late_layers, trunk


@dataclass(frozen=True)
class Head:
    """A head of global average pooling and one linear layer: `logits = weight @ mean(activation) + bias`.

    layer: the name of the pooled layer.
    classifier: the name of the linear module.
    pooled: how the mean reads the activation: "nchw", "nhwc" or "tokens".
    skipped: the number of first tokens that the mean leaves out.
    """

    layer: str
    classifier: str
    pooled: str = "nchw"
    skipped: int = 0


@dataclass(frozen=True)
class Structure:
    """The end of a network, as far as maps need it.

    layer: the layer that maps come from by default; None where its end alone does not show it.
    head: None where the network does not end in global average pooling and one linear layer.
    candidates: other layers that a user could name.
    classes: the number of classes.
    late: layers that maps may come from where `layer` is None, the preferred one first.
    norms: the normalisations that open a residual block, the last one first.
    """

    layer: str | None
    head: Head | None
    candidates: tuple[str, ...]
    classes: int
    late: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()


def trace(model: nn.Module, example: Tensor) -> Structure:
    """The structure of a model, read off one forward pass of `example`, (N, C, H, W).

    Raises UnsuitableModel where the model does not answer with scores (N, classes).
    """
    seen = watch(model, example, rectified=False)
    if seen.logits.ndim != 2:
        raise UnsuitableModel(f"the model answers with shape {tuple(seen.logits.shape)}, not (N, classes)")
    head = _pooled_first(seen)
    if head is None:  # few networks need a second pass: for an activation that a function rectifies
        seen = watch(model, example, rectified=True)
        head = _pooled_first(seen)
    once, classes = seen.once, int(seen.logits.shape[1])
    layer = head.layer if head else trunk(seen.calls, once)
    if layer is None:
        head = _pooled_last(seen)
        layer = head.layer if head else None
    late = tuple(late_layers(once, classes))
    convolutions = tuple(call.name for call in once if call.spatial and convolves(call.module))
    candidates = late[::-1] if ends_in_tokens(once) else convolutions[-8:]
    return Structure(layer, head, candidates, classes, late, tuple(first_norms(once)))


def _pooled_first(seen: Watched) -> Head | None:
    """The head that averages an activation (N, K, h, w)."""
    for classifier, features in _classifiers(seen):
        # A module's own output is preferred, then a pooling module's input, then an output that a function rectifies.
        for point in ("output", "input", "relu"):
            for call in reversed(seen.once):
                mean = {"output": call.output_mean, "input": call.input_mean, "relu": call.output_relu_mean}[point]
                if mean is not None and same(mean, features):
                    return Head(str(Layer(call.name, point)), classifier)
    return None


def _pooled_last(seen: Watched) -> Head | None:
    """The head that averages an activation (N, h, w, K) or (N, tokens, K)."""
    for classifier, features in _classifiers(seen):
        for call in reversed(seen.once):
            if call.positions == 1:
                continue
            if call.last_mean is not None and same(call.last_mean, features):
                return Head(call.name, classifier, "nhwc")
            for skipped, mean in enumerate(call.token_means):
                if same(mean, features):
                    return Head(call.name, classifier, "tokens", skipped)
    return None


def _classifiers(seen: Watched) -> list[tuple[str, Tensor]]:
    """The linear modules that give the scores, by name, the last one first, with their inputs (N, K)."""
    vectors = reversed(list(seen.vectors.items()))
    return [(name, features) for name, (features, output) in vectors if _gives(output, seen.logits)]


def _gives(output: Tensor, logits: Tensor) -> bool:
    """Whether a linear module's output is the scores; one score stands for a label's absence and its presence."""
    return same(output, logits) or (output.shape[1] == 1 and same(two_classes(output), logits))


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for rounding, relative to the largest value: activations have any scale."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))
