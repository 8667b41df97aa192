"""A recorded pass: from one forward pass to the attributions of its rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Union

import torch
from torch import Tensor, nn

from .choice import MODEL, Source
from .fusion import fused, parts
from .head import LinearHead
from .layout import Layout
from .method import AttentionSignal, InputSignal, LayerSignal, ModelSignal, ScoreSignal
from .precision import PRECISIONS, autocast, tensor_float_of
from .query import Attribution, Query
from .recorded_attention import RecordedAttention
from .registry import METHODS
from .rules import Rules
from .wave import Wave, subtracted, wave_of

Signal = Union[LayerSignal, InputSignal, ScoreSignal, AttentionSignal, ModelSignal]


@contextmanager
def grad_mode(graph: bool) -> Iterator[None]:
    """A mode that records a graph, or none, whatever mode the caller is in; tensors made inside may become leaves."""
    with torch.inference_mode(False), torch.enable_grad() if graph else torch.no_grad():
        yield


@contextmanager
def forward_mode(graph: bool) -> Iterator[None]:
    """A mode for a forward pass; without a graph it spares the book-keeping too."""
    with grad_mode(True) if graph else torch.inference_mode():
        yield


@dataclass(frozen=True)
class Recorded:
    """A forward pass that can be asked for attributions while its graph lives.

    inputs: (N, C, H, W), a leaf where a query needs the input's gradient.
    logits: (N, classes).
    activations: by the layer's name, as the network has them.
    layouts: by the layer's name; they turn activations and gradients into (N, K, h, w).
    head: the linear head; None where autograd has to compute every gradient.
    source_of: the source of a query's signal.
    precision: of the pass, and of the backward passes to come; None for the process's own.
    scale: the score is multiplied by it before a backward pass, and the gradient divided by it afterwards. In float16
        gradients below 6e-8 would otherwise become 0.
    attention: the attention; None where no query needs it.
    rules: the marked ReLUs; None where no query has a rule.
    model: the model of the pass, for queries whose method asks it again; None where there are none.

    Every signal is given in float32 (float64 for a model in float64), whatever the precision of the pass.
    """

    inputs: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]
    layouts: Mapping[str, Layout]
    head: LinearHead | None
    source_of: Callable[[Query], Source]
    precision: str | None = None
    scale: float = 1.0
    attention: RecordedAttention | None = None
    rules: Rules | None = None
    model: nn.Module | None = None

    def attributions(self, queries: Sequence[Sequence[Query]]) -> Generator[None, None, list[list[Attribution]]]:
        """One attribution for each query of each row, in order; yields before each backward pass.

        Rows do not depend on each other, so one backward pass of the sum of their scores answers one query of each,
        and all queries of a row that explain the same score. Queries of different rules share none.
        Queries that need no backward pass are answered together, before the others. A query whose method asks the model
        again is answered alone, after them.
        """
        answers: dict[tuple[int, int], Attribution] = {}
        places = [(row, number) for row, asks in enumerate(queries) for number in range(len(asks))]
        source_at = {(row, number): self.source_of(queries[row][number]) for row, number in places}
        alone = [place for place in places if source_at[place] == MODEL]
        known = [place for place in places if source_at[place] != MODEL and self._known(source_at[place])]
        if known:
            with grad_mode(False):
                answers.update(zip(known, self._answer([(row, queries[row][number]) for row, number in known])))
        shared = [place for place in places if place not in answers and place not in alone]
        rules = {(row, number): METHODS[queries[row][number].method].rule for row, number in shared}
        waves: list[list[tuple[int, int]]] = []
        for rule in dict.fromkeys(rules.values()):
            waves += _waves(queries, [place for place in rules if rules[place] == rule])
        for left, wave in zip(range(len(waves) - 1, -1, -1), waves):
            yield
            with grad_mode(True):
                asked = [(row, queries[row][number]) for row, number in wave]
                answers.update(zip(wave, self._answer(asked, keep_graph=left > 0)))
        for row, number in alone:
            yield
            with grad_mode(True), tensor_float_of(self.precision):
                answers[row, number] = self._answer([(row, queries[row][number])])[0]
        return [[answers[row, number] for number in range(len(asks))] for row, asks in enumerate(queries)]

    def _known(self, source: Source) -> bool:
        """Whether a signal needs no backward pass."""
        return not source.backward or (self.head is not None and source.layers == (self.head.layer,))

    def _answer(self, asked: Sequence[tuple[int, Query]], keep_graph: bool = False) -> list[Attribution]:
        """The attributions of one wave: queries with their rows."""
        queries = [query for _, query in asked]
        sources = [self.source_of(query) for query in queries]
        wave = wave_of(self.logits, asked)
        # Queries of the same row explain the same score here: it counts once.
        each_row = [*{row: number for number, (row, _) in reversed([*enumerate(asked)])}.values()]
        methods = [METHODS[query.method] for query in queries]
        following = self.rules.following(methods[0].rule) if self.rules else nullcontext()
        with following:
            gradients = self._gradients(wave.pick(each_row).scores, sources, keep_graph)
        values: dict[int, Tensor] = {}
        for source, method in dict.fromkeys(zip(sources, methods)):
            members = [k for k in range(len(asked)) if (sources[k], methods[k]) == (source, method)]
            picked = wave.pick(members)
            # Any other signal than the method's own is the one that its draws are prepared from.
            function = method.attribute if source.signal == method.signal else method.prepare
            assert function is not None
            found = [function(self._signal(s, picked, gradients)).detach() for s in parts(source)]
            if any(len(of_members) != len(members) for of_members in found):
                raise ValueError(f"{method.name}: attribute must give one attribution for each row")
            values.update(zip(members, fused(found) if len(found) > 1 else found[0]))
        targets = wave.targets_of(queries)
        scores = self._full(wave.scores.detach())
        return [
            Attribution(query.at(target), values[k], score=scores[k])
            for k, (query, target) in enumerate(zip(queries, targets))
        ]

    def _gradients(
        self, scores: Tensor, sources: Iterable[Source], keep_graph: bool
    ) -> dict[Source, tuple[Tensor, ...]]:
        """The gradients of the scores' sum in the tensors of each source that needs a backward pass."""
        unknown = [part for whole in dict.fromkeys(sources) if not self._known(whole) for part in parts(whole)]
        found: dict[Source, tuple[Tensor, ...]] = {}
        with tensor_float_of(self.precision):
            for source in unknown:
                if source.gradients == "blocks":
                    assert self.attention is not None
                    with autocast(self.precision, scores.device):
                        found[source] = self.attention.own_gradients(
                            scores, self.logits, self.inputs[:1].detach(), self.scale
                        )
            leaves = {source: self._leaves(source) for source in dict.fromkeys(unknown) if source not in found}
            if leaves:
                flat = [leaf for several in leaves.values() for leaf in several]
                gradients = iter(torch.autograd.grad(scores.sum() * self.scale, flat, retain_graph=keep_graph))
                found.update({source: tuple(next(gradients) for _ in several) for source, several in leaves.items()})
        if self.scale == 1:
            return found
        return {source: tuple(one.float() / self.scale for one in several) for source, several in found.items()}

    def _leaves(self, source: Source) -> tuple[Tensor, ...]:
        """The tensors in which a source's signal needs the score's gradient."""
        if source.signal == "attention":
            assert self.attention is not None
            return self.attention.matrices
        return (self.inputs if source.layer is None else self.activations[source.layer],)

    def _signal(self, source: Source, wave: Wave, gradients: Mapping[Source, tuple[Tensor, ...]]) -> Signal:
        if source.signal == "attention":
            assert self.attention is not None
            return self.attention.signal(wave, gradients.get(source, ()), self._full)
        if source.signal == "score":
            return ScoreSignal(self._full(wave.of(self.logits.detach())), wave.targets, self._full(wave.scores))
        if source == MODEL:
            assert self.model is not None
            return ModelSignal(self.model, wave.of(self.inputs.detach()), wave.targets, wave.contrasts)
        if source.layer is None:
            return InputSignal(wave.of(self.inputs.detach()), wave.of(gradients[source][0]))
        layout = self.layouts[source.layer]
        activations = layout.maps(self._full(wave.of(self.activations[source.layer].detach())))
        if not source.backward:
            # A method that reads a gradient in spite of its row gets no map that looks like one.
            return LayerSignal(activations, activations.new_full((), torch.nan).expand_as(activations), None)
        if source in gradients:
            return LayerSignal(activations, layout.maps(wave.of(gradients[source][0])).to(activations.dtype), None)
        assert self.head is not None
        weights = self.head.weight[wave.targets]
        weights = weights - subtracted(self.head.weight[wave.contrasts.clamp_min(0)], wave.contrasts)
        # The gradient of a linear layer over a mean is the weight, shared out over all that the mean is of.
        flat = weights[:, :, None, None] / (activations[0, 0].numel() + self.head.prefix)
        return LayerSignal(activations, flat.expand_as(activations), weights)

    def _full(self, values: Tensor) -> Tensor:
        """The values in float32, where the pass was made in fewer bits."""
        return values.float() if PRECISIONS[self.precision or "float32"] != torch.float32 else values


def _waves(queries: Sequence[Sequence[Query]], places: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The places of queries, (row, number), in waves: each has one score of a row, and all queries that explain it."""
    rows: dict[int, dict[tuple[int | None, ...], list[tuple[int, int]]]] = {}
    for row, number in places:
        rows.setdefault(row, {}).setdefault(queries[row][number].score, []).append((row, number))
    waves: list[list[tuple[int, int]]] = [[] for _ in range(max(map(len, rows.values())))]
    for by_score in rows.values():
        for wave, of_score in zip(waves, by_score.values()):
            wave.extend(of_score)
    return waves
