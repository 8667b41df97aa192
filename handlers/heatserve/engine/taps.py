"""Taps: places in a network whose activations can be recorded. Hooked once, off unless asked.

A tap that records in a graph also *cuts* it: the activation becomes a fresh leaf, so that the network before it
records nothing and the backward pass runs through what follows alone.
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
    """A place in a network: a module's name and what of it is meant.

    Written `name` (the module's output), `name:input`, or `name:relu` (the output as the network uses it when it
    rectifies it outside any module, as DenseNet does).
    """

    module: str
    point: str = "output"

    @staticmethod
    def parse(text: str) -> Layer:
        """Raises UnsuitableModel for a point that does not exist."""
        module, _, point = text.partition(":")
        if (point or "output") not in POINTS:
            raise UnsuitableModel(f"layer {text!r}: after the colon only {', '.join(POINTS)} can stand")
        return Layer(module, point or "output")

    def __str__(self) -> str:
        return self.module if self.point == "output" else f"{self.module}:{self.point}"


@dataclass
class Recording:
    """What one forward pass left at the taps: layer name -> activation, shape (N, K, h, w)."""

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
            # The network rectifies it once more, and a ReLU passes no gradient on where its input is 0: keep off 0.
            return torch.add(kept, torch.finfo(kept.dtype).tiny)
        # A copy goes on: an in-place operation behind the tap must change neither the leaf nor what was recorded.
        return kept.clone()

    @contextmanager
    def recording(self, layers: Iterable[str], graph: bool) -> Iterator[Recording]:
        """Switches the taps of `layers` on for the forward passes inside, with a graph from there on or without."""
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
    """Scores, and the activations of the layers by name: one forward pass without a graph.

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
