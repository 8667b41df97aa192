"""From one recorded forward pass to the attributions of its rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .methods import METHODS, InputSignal, LayerSignal
from .query import Attribution, Query


@contextmanager
def grad_mode(graph: bool) -> Iterator[None]:
    """Records a graph inside, or none; whatever mode the caller is in, what is made inside may become a leaf."""
    with torch.inference_mode(False), torch.enable_grad() if graph else torch.no_grad():
        yield


@dataclass(frozen=True)
class LinearHead:
    """Global average pooling of `layer` and one linear layer: the score's gradient in the layer is known.

    weight: (classes, K).
    """

    layer: str
    weight: Tensor


@dataclass(frozen=True)
class Recorded:
    """A forward pass that can be asked for attributions, while its graph lives.

    inputs: (N, C, H, W), a leaf where a query needs the input's gradient. logits: (N, classes).
    activations: by layer, (N, K, h, w). head: None where gradients in every layer have to be computed.
    layer_of: the layer of a query's map, None for methods of the input. graph: whether backward passes are to come.
    """

    inputs: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]
    head: LinearHead | None
    layer_of: Callable[[Query], str | None]
    graph: bool = True

    def attributions(self, queries: Sequence[Sequence[Query]]) -> Generator[None, None, list[list[Attribution]]]:
        """An attribution for each query of each row, in order; yields before each backward pass.

        A wave holds one query of each row at most: one backward pass of the summed scores answers all of it, as rows
        do not depend on each other.
        """
        answers: list[list[Attribution]] = [[] for _ in queries]
        depth = max(len(row) for row in queries)
        for number in range(depth):
            if self.graph:
                yield
            asked = [(row, asks[number]) for row, asks in enumerate(queries) if len(asks) > number]
            with grad_mode(self.graph):
                wave = self._wave(asked, last=number == depth - 1)
            for (row, _), attribution in zip(asked, wave):
                answers[row].append(attribution)
        return answers

    def _wave(self, asked: Sequence[tuple[int, Query]], last: bool) -> list[Attribution]:
        queries = [query for _, query in asked]
        layers = [self.layer_of(query) for query in queries]
        wave = _scored(self.logits, asked)
        gradients = self._gradients(wave.scores.sum(), dict.fromkeys(layers), keep_graph=not last)
        values: list[Tensor] = [wave.scores] * len(asked)
        methods = [METHODS[query.method] for query in queries]
        for layer, method in dict.fromkeys(zip(layers, methods)):
            members = [k for k in range(len(asked)) if (layers[k], methods[k]) == (layer, method)]
            of_members = method.attribute(self._signal(layer, wave.pick(members), gradients)).detach()
            for k, one in zip(members, of_members):
                values[k] = one
        return [Attribution(query.at(target), one) for query, target, one in zip(queries, wave.known(queries), values)]

    def _gradients(self, score: Tensor, layers: Iterable[str | None], keep_graph: bool) -> dict[str | None, Tensor]:
        """d(score)/d(activation) of every layer, and of the input (None), that has no closed form."""
        sources = {
            layer: self.inputs if layer is None else self.activations[layer]
            for layer in layers
            if self.head is None or layer != self.head.layer
        }
        if not sources:
            return {}
        found = torch.autograd.grad(score, list(sources.values()), retain_graph=keep_graph)
        return dict(zip(sources, found))

    def _signal(
        self, layer: str | None, wave: _Wave, gradients: Mapping[str | None, Tensor]
    ) -> LayerSignal | InputSignal:
        if layer is None:
            return InputSignal(self.inputs.detach()[wave.rows], gradients[None][wave.rows])
        activations = self.activations[layer].detach()[wave.rows]
        if layer in gradients:
            return LayerSignal(activations, gradients[layer][wave.rows], None)
        assert self.head is not None
        weights = self.head.weight[wave.targets]
        weights = weights - self.head.weight[wave.contrasts.clamp_min(0)] * (wave.contrasts >= 0)[:, None]
        # The gradient of a linear layer over a mean is known: the weight, shared out over the places.
        flat = weights[:, :, None, None] / activations[0, 0].numel()
        return LayerSignal(activations, flat.expand_as(activations), weights)


@dataclass(frozen=True)
class _Wave:
    """One query each of several rows, on the device: row, target, contrast (-1: none), score; all (n)."""

    rows: Tensor
    targets: Tensor
    contrasts: Tensor
    scores: Tensor

    def pick(self, members: Sequence[int]) -> _Wave:
        if len(members) == len(self.rows):
            return self
        index = torch.tensor(members, device=self.rows.device)
        return _Wave(self.rows[index], self.targets[index], self.contrasts[index], self.scores[index])

    def known(self, queries: Sequence[Query]) -> list[int]:
        """The targets on the host; read back from the device only where one was not given."""
        given = [query.target for query in queries if query.target is not None]
        return given if len(given) == len(queries) else [int(target) for target in self.targets.tolist()]


def _scored(logits: Tensor, asked: Sequence[tuple[int, Query]]) -> _Wave:
    """The classes and scores that are asked for, without a copy back to the host."""
    given = torch.tensor(
        [
            [row, -1 if q.target is None else q.target, q.rank, -1 if q.contrast is None else q.contrast]
            for row, q in asked
        ],
        device=logits.device,
    )
    rows, targets, ranks, contrasts = given.unbind(1)
    if any(query.target is None for _, query in asked):
        ranked = logits.detach().topk(max(query.rank for _, query in asked) + 1).indices
        targets = torch.where(targets < 0, ranked[rows, ranks], targets)
    scores = logits[rows, targets] - torch.where(contrasts < 0, 0.0, logits[rows, contrasts.clamp_min(0)])
    return _Wave(rows, targets, contrasts, scores)
