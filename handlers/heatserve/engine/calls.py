"""The calls of a network's modules in one forward pass, reduced to the values by which its structure is found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel

#: The most prefix tokens that a mean over tokens may leave out.
_MOST_SKIPPED = 8


@dataclass(frozen=True)
class Call:
    """One module's run, reduced to the values that the search needs.

    input_mean, output_mean: over all places of (N, K, h, w), (N, K); None for tensors without places.
    output_relu_mean: of the rectified output; None unless it was asked for.
    last_mean: of the output as (N, h, w, K); None where it has not four axes.
    token_means: of the output as (N, tokens, K) without its first 0, 1, 2 ... tokens.
    spatial: whether the output is (N, K, h, w) with more than one place, as far as its shape says.
    positions: the number of places of the output.
    shape: of the output; empty where it is no tensor.
    opens: whether the module is the first one that a residual block gives its input to.
    """

    name: str
    module: nn.Module
    input_mean: Tensor | None
    output_mean: Tensor | None
    output_relu_mean: Tensor | None
    last_mean: Tensor | None
    token_means: tuple[Tensor, ...]
    spatial: bool
    positions: int
    shape: tuple[int, ...]
    opens: bool = False


@dataclass
class _Frame:
    """A module that is running: its input, the mean of it, and the modules that were given the same input.

    The mean is taken before the module runs: it may work in place on its input.
    """

    given: Any
    mean: Tensor | None
    first: str | None = None


@dataclass(frozen=True)
class Watched:
    """What one forward pass has shown.

    calls: of all modules, in the order in which they ended.
    vectors: the inputs and outputs of linear layers by name.
    logits: the scores.
    """

    calls: list[Call]
    vectors: dict[str, tuple[Tensor, Tensor]]
    logits: Tensor

    @property
    def once(self) -> list[Call]:
        """The calls of modules that run once."""
        times = Counter(call.name for call in self.calls)
        return [call for call in self.calls if times[call.name] == 1 and call.name]


def watch(model: nn.Module, example: Tensor, rectified: bool) -> Watched:
    """The calls of a forward pass of `example`, (N, C, H, W).

    rectified: whether the means of rectified outputs are wanted as well.
    """
    calls: list[Call] = []
    vectors: dict[str, tuple[Tensor, Tensor]] = {}
    openers: set[str] = set()
    running: list[_Frame] = []

    def before(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            given = inputs[0] if inputs else None
            if running and running[-1].first is None and given is running[-1].given and isinstance(given, Tensor):
                running[-1].first = name
            running.append(_Frame(given, _mean(given)))

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            frame = running.pop()
            if isinstance(module, nn.Linear) and isinstance(output, Tensor) and output.ndim == 2:
                vectors[name] = (inputs[0].clone(), output.clone())
            result = output[0] if isinstance(output, (tuple, list)) and output else output
            if frame.first is not None and getattr(result, "shape", None) == frame.given.shape:
                openers.add(frame.first)
            calls.append(_call(name, module, frame.mean, output, rectified))

        return hook

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
    return Watched([replace(call, opens=call.name in openers) for call in calls], vectors, logits)


def _call(name: str, module: nn.Module, entered: Tensor | None, output: Any, rectified: bool) -> Call:
    mean = _mean(output)
    tensor = isinstance(output, Tensor)
    tokens = output.shape[1] if tensor and output.ndim == 3 else 0
    return Call(
        name,
        module,
        entered,
        mean,
        _mean(output.relu()) if rectified and mean is not None else None,
        output.mean((1, 2)) if tensor and output.ndim == 4 and output.is_floating_point() else None,
        tuple(output[:, skipped:].mean(1) for skipped in range(min(tokens, _MOST_SKIPPED + 1))),
        mean is not None,
        _positions(output),
        tuple(output.shape) if tensor else (),
    )


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
