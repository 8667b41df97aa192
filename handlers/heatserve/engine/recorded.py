"""From one recorded forward pass to the attributions of its rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .head import LinearHead
from .methods import METHODS, InputSignal, LayerSignal
from .precision import PRECISIONS, tensor_float_of
from .query import Attribution, Query
from .ranking import ranking


@contextmanager
def grad_mode(graph: bool) -> Iterator[None]:
    """Records a graph inside, or none; whatever mode the caller is in, what is made inside may become a leaf."""
    with torch.inference_mode(False), torch.enable_grad() if graph else torch.no_grad():
        yield


@contextmanager
def forward_mode(graph: bool) -> Iterator[None]:
    """For a forward pass: what needs no graph is spared its book-keeping."""
    with grad_mode(True) if graph else torch.inference_mode():
        yield


@dataclass(frozen=True)
class Recorded:
    """A forward pass that can be asked for attributions, while its graph lives.

    inputs: (N, C, H, W), a leaf where a query needs the input's gradient. logits: (N, classes).
    activations: by layer, (N, K, h, w). head: None where gradients in every layer have to be computed.
    layer_of: the layer of a query's map, None for methods of the input. precision: that of the passes, None for the
    process's own; what comes out is float32. scale: the score is multiplied by it and its gradient divided, where a
    precision's smallest number is larger than gradients are.
    """

    inputs: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]
    head: LinearHead | None
    layer_of: Callable[[Query], str | None]
    precision: str | None = None
    scale: float = 1.0

    def attributions(self, queries: Sequence[Sequence[Query]]) -> Generator[None, None, list[list[Attribution]]]:
        """An attribution for each query of each row, in order; yields before each backward pass.

        A wave holds one query of each row at most: one backward pass of the summed scores answers all of it, as rows
        do not depend on each other. Where the gradient is known without one, a wave holds everything.
        """
        answers: dict[tuple[int, int], Attribution] = {}
        places = [(row, number) for row, asks in enumerate(queries) for number in range(len(asks))]
        known = [place for place in places if self._known(self.layer_of(queries[place[0]][place[1]]))]
        if known:
            with grad_mode(False):
                answers.update(zip(known, self._wave([(row, queries[row][number]) for row, number in known])))
        waves: list[list[tuple[int, int]]] = []
        for row, asks in enumerate(queries):
            unknown = [(row, number) for number in range(len(asks)) if (row, number) not in answers]
            waves += [[] for _ in unknown[len(waves) :]]
            for wave, place in zip(waves, unknown):
                wave.append(place)
        for left, wave in zip(range(len(waves) - 1, -1, -1), waves):
            yield
            with grad_mode(True):
                asked = [(row, queries[row][number]) for row, number in wave]
                answers.update(zip(wave, self._wave(asked, keep_graph=left > 0)))
        return [[answers[row, number] for number in range(len(asks))] for row, asks in enumerate(queries)]

    def _known(self, layer: str | None) -> bool:
        """Whether the score's gradient in a layer has a closed form."""
        return self.head is not None and layer == self.head.layer

    def _wave(self, asked: Sequence[tuple[int, Query]], keep_graph: bool = False) -> list[Attribution]:
        queries = [query for _, query in asked]
        layers = [self.layer_of(query) for query in queries]
        wave = _scored(self.logits, asked)
        gradients = self._gradients(wave.scores.sum(), dict.fromkeys(layers), keep_graph)
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
            if not self._known(layer)
        }
        if not sources:
            return {}
        scale = self.scale
        with tensor_float_of(self.precision):
            found = torch.autograd.grad(score * scale, list(sources.values()), retain_graph=keep_graph)
        return {layer: gradient.float() / scale if scale != 1 else gradient for layer, gradient in zip(sources, found)}

    def _signal(
        self, layer: str | None, wave: _Wave, gradients: Mapping[str | None, Tensor]
    ) -> LayerSignal | InputSignal:
        if layer is None:
            return InputSignal(wave.of(self.inputs.detach()), wave.of(gradients[None]))
        activations = wave.of(self.activations[layer].detach())
        if PRECISIONS[self.precision or "float32"] != torch.float32:
            activations = activations.float()
        if layer in gradients:
            return LayerSignal(activations, wave.of(gradients[layer]).to(activations.dtype), None)
        assert self.head is not None
        weights = self.head.weight[wave.targets]
        weights = weights - self.head.weight[wave.contrasts.clamp_min(0)] * (wave.contrasts >= 0)[:, None]
        # The gradient of a linear layer over a mean is known: the weight, shared out over the places.
        flat = weights[:, :, None, None] / activations[0, 0].numel()
        return LayerSignal(activations, flat.expand_as(activations), weights)


@dataclass(frozen=True)
class _Wave:
    """One query each of several rows, on the device: row, target, contrast (-1: none), score; all (n).

    whole: whether these are all rows of the pass, in order, each once.
    """

    rows: Tensor
    targets: Tensor
    contrasts: Tensor
    scores: Tensor
    whole: bool

    def of(self, values: Tensor) -> Tensor:
        """What belongs to its rows; the tensor itself where that is all."""
        return values if self.whole else values[self.rows]

    def pick(self, members: Sequence[int]) -> _Wave:
        if len(members) == len(self.rows):
            return self
        index = torch.tensor(members).to(self.rows.device, non_blocking=True)
        return _Wave(self.rows[index], self.targets[index], self.contrasts[index], self.scores[index], False)

    def known(self, queries: Sequence[Query]) -> list[int]:
        """The targets on the host; read back from the device only where one was not given."""
        given = [query.target for query in queries if query.target is not None]
        return given if len(given) == len(queries) else [int(target) for target in self.targets.tolist()]


def _at(ranked: Tensor, ranks: Tensor) -> Tensor:
    return ranked.gather(1, ranks[:, None])[:, 0]


def _scored(logits: Tensor, asked: Sequence[tuple[int, Query]]) -> _Wave:
    """The classes and scores that are asked for, without a copy back to the host."""
    given = torch.tensor(
        [
            [row, -1 if q.target is None else q.target, q.rank, -1 if q.contrast is None else q.contrast]
            for row, q in asked
        ]
    ).to(logits.device, non_blocking=True)
    rows, targets, ranks, contrasts = given.unbind(1)
    if any(query.target is None for _, query in asked):
        found = logits.detach()[rows]
        # The sort is not needed for the best one, which most ask for.
        best = found.argmax(1) if max(query.rank for _, query in asked) == 0 else _at(ranking(found), ranks)
        targets = torch.where(targets < 0, best, targets)
    scores = logits[rows, targets] - torch.where(contrasts < 0, 0.0, logits[rows, contrasts.clamp_min(0)])
    return _Wave(rows, targets, contrasts, scores, [row for row, _ in asked] == [*range(len(logits))])
