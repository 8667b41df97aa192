"""Taps: places in a network whose activations can be recorded. They are hooked once, and off unless asked.

A tap that records in a graph also *cuts* the graph. The activation becomes a fresh leaf, so that the network before it
records nothing, and the backward pass runs only through the network behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel

POINTS = ("output", "input", "relu")


@dataclass(frozen=True)
class Layer:
    """A place in a network, written `name`, `name:input` or `name:relu`.

    module: the module's name.
    point: "output", "input", or "relu". The last is the module's output after a ReLU; it is meant for networks that
        rectify it by a function outside any module, as DenseNet does.
    """

    module: str
    point: str = "output"

    @staticmethod
    def parse(text: str) -> Layer:
        """The layer that a text names. Raises UnsuitableModel for a point that does not exist."""
        module, _, point = text.partition(":")
        if (point or "output") not in POINTS:
            raise UnsuitableModel(f"layer {text!r}: after the colon only {', '.join(POINTS)} can stand")
        return Layer(module, point or "output")

    def __str__(self) -> str:
        return self.module if self.point == "output" else f"{self.module}:{self.point}"


@dataclass
class Recording:
    """The activations that one forward pass leaves at the taps.

    wanted: the names of the layers to record.
    graph: whether the pass records a graph, which the taps then cut.
    activations: by the layer's name, (N, K, h, w).
    """

    wanted: frozenset[str]
    graph: bool
    activations: dict[str, Tensor] = field(default_factory=dict)


class Taps:
    """The hooks of a model, registered at construction. Not for several threads at once."""

    def __init__(self, model: nn.Module, layers: Iterable[str]) -> None:
        self._recording: Recording | None = None
        self._handles = [self._hook(model, Layer.parse(name)) for name in dict.fromkeys(layers)]

    def _hook(self, model: nn.Module, layer: Layer) -> Any:
        try:
            module = model.get_submodule(layer.module)
        except AttributeError:
            raise UnsuitableModel(f"the network has no module {layer.module!r}") from None
        if layer.point == "input":

            def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
                passed_on = self._record(layer, inputs[0])
                return None if passed_on is None else (passed_on, *inputs[1:])

            return module.register_forward_pre_hook(before)

        def after(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            return self._record(layer, output)

        return module.register_forward_hook(after)

    def _record(self, layer: Layer, activation: Any) -> Tensor | None:
        recording, name = self._recording, str(layer)
        if recording is None or name not in recording.wanted:
            return None
        if name in recording.activations:
            raise UnsuitableModel(f"layer {name!r} runs more than once in a forward pass; name one that runs once")
        if not isinstance(activation, Tensor):
            raise UnsuitableModel(f"layer {name!r} gives a {type(activation).__name__}, not a tensor")
        kept: Tensor = torch.relu(activation) if layer.point == "relu" else activation
        if recording.graph and not kept.requires_grad:
            kept = kept.detach().requires_grad_()
        recording.activations[name] = kept
        if layer.point == "relu" and recording.graph:
            # The network rectifies the activation again, and a ReLU passes no gradient on at 0: every 0 becomes tiny.
            return torch.add(kept, torch.finfo(kept.dtype).tiny)
        # The network gets a copy: an operation in place behind the tap must change neither leaf nor recording.
        return kept.clone()

    @contextmanager
    def recording(self, layers: Iterable[str], graph: bool) -> Iterator[Recording]:
        """A context for one forward pass in which the taps of `layers` record; graph: whether the pass records one."""
        recording = Recording(frozenset(layers), graph)
        self._recording = recording
        try:
            yield recording
        finally:
            self._recording = None

    def remove(self) -> None:
        """Takes the hooks off the model."""
        for handle in self._handles:
            handle.remove()


def activations(model: nn.Module, images: Tensor, layers: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """The scores, and the activations of the layers by name, from one forward pass without a graph.

    Raises UnsuitableModel where a layer does not run in it.
    """
    taps = Taps(model, layers)
    try:
        with taps.recording(layers, graph=False) as recording, torch.no_grad():
            scores: Tensor = model(images.clone(memory_format=torch.preserve_format))
    finally:
        taps.remove()
    idle = [name for name in layers if name not in recording.activations]
    if idle:
        raise UnsuitableModel(f"layer {idle[0]!r} does not run in a forward pass; name one that does")
    return scores, recording.activations
