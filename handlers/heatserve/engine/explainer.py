"""The explainer: one model, its taps, and one forward pass that answers predictions and explanations together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .errors import OutOfMemory, UnsuitableModel
from .methods import METHODS, InputSignal, LayerSignal, Method
from .smoothing import Noise, Statistic
from .structure import Head, Structure, same, trace
from .taps import Recording, Taps


@dataclass(frozen=True)
class Query:
    """What is asked of one image.

    The score that is explained is the pre-softmax `y_c`; with `contrast` it is `y_c - y_contrast`. `target` is a class
    index; None means the class that the clean image ranks at `rank` (0: the predicted one).
    samples > 1 smooths the method, whichever it is: noise of `noise_level` times the image's range.
    """

    method: str = "gradcam"
    target: int | None = None
    rank: int = 0
    contrast: int | None = None
    layer: str | None = None
    samples: int = 1
    noise_level: float = 0.15
    seed: int = 0

    @property
    def smoothed(self) -> bool:
        """Whether it takes steps of noisy copies (`Explainer.smooth`); else one forward pass answers it."""
        return self.samples > 1 or METHODS[self.method].statistic != "mean"

    @property
    def through_input(self) -> bool:
        """Whether the gradient has to reach the input, which it cannot beyond the cut at a tap."""
        return METHODS[self.method].signal == "input"

    def at(self, target: int) -> Query:
        """The same query with its target fixed, unless it was fixed already."""
        return self if self.target is not None else replace(self, target=target)


@dataclass(frozen=True)
class Attribution:
    """An answer. values: (C, H, W) from the input's gradient, (h, w) from a layer; float32, on the model's device.

    `query.target` is the class that was explained. standard_error has the shape of `values`, relative_error is
    |standard error| / |values| (both None unless smoothed).
    """

    query: Query
    values: Tensor
    standard_error: Tensor | None = None
    relative_error: Tensor | None = None

    @property
    def map(self) -> Tensor:
        """The attribution reduced to a picture's shape, (H, W) or (h, w)."""
        return METHODS[self.query.method].reduce(self.values)


class Explainer:
    """Puts a model in evaluation mode, freezes its parameters and hooks the layers that maps come from, once.

    model: gives (N, classes) scores for images (N, C, H, W). example: one or more such images, on the model's device;
    the structure is read off one forward pass of it. layers: names to tap; none for the automatic choice.
    chunk: noisy copies in one forward; None for a size that suits the device.

    Raises UnsuitableModel where no layer is named and the network does not show which one to take.
    """

    def __init__(self, model: nn.Module, example: Tensor, layers: Sequence[str] = (), chunk: int | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.device = example.device
        self.fallbacks = 0
        self.structure: Structure = trace(model, example)
        self.head: Head | None = self.structure.head
        self.classes = self.structure.classes
        self.layers = tuple(layers) or ((self.structure.layer,) if self.structure.layer else ())
        self._taps = Taps(model, self.layers)
        classifier = model.get_submodule(self.head.classifier) if self.head else None
        self._weight = classifier.weight.detach() if isinstance(classifier, nn.Linear) else None
        self._prove(example[:1])
        self.chunk = chunk or self._suitable_chunk(example[:1])

    @property
    def layer(self) -> str:
        """The layer that is used where a query names none. Raises UnsuitableModel where there is none."""
        if not self.layers:
            candidates = ", ".join(self.structure.candidates) or "none found"
            raise UnsuitableModel(
                "it is not clear which layer the maps should come from: the network does not end in a convolutional "
                f"trunk, pooling and a linear layer; name one with `layer` (candidates: {candidates})"
            )
        return self.layers[0]

    def check(self, method: str) -> None:
        """Raises UnsuitableModel where the network cannot answer a method, saying why and what can."""
        if METHODS[method].signal != "layer":
            return
        layer = self.layer
        if METHODS[method].needs_linear_head and (self.head is None or self.head.layer not in self.layers):
            reason = (
                "the network does not end in global average pooling and one linear layer"
                if self.head is None
                else f"layer {layer!r} is not what the network pools (that is {self.head.layer!r})"
            )
            raise UnsuitableModel(f"{method} is not possible: {reason}; use gradcam, which suits any head")

    def methods(self) -> tuple[str, ...]:
        """The methods that this network can answer."""
        return tuple(name for name in METHODS if self._possible(name))

    def _possible(self, method: str) -> bool:
        try:
            self.check(method)
        except UnsuitableModel:
            return False
        return True

    def layer_of(self, query: Query) -> str | None:
        """The layer that a query's map comes from; None for methods of the input."""
        method = METHODS[query.method]
        if method.signal != "layer":
            return None
        if method.needs_linear_head and self.head is not None:
            return self.head.layer
        return query.layer or self.layer

    def run(self, images: Tensor, queries: Sequence[Sequence[Query]]) -> tuple[Tensor, list[list[Attribution]]]:
        """One forward pass: (N, classes) scores, and an attribution at each image itself for each of its queries.

        images: (N, C, H, W) on the model's device; queries: one sequence for each image, empty for a prediction.
        Smoothing is not done here. Where the device's memory is short the batch is halved; OutOfMemory is raised when
        a single row does not fit.
        """
        try:
            return self._run(images, queries)
        except (torch.cuda.OutOfMemoryError, MemoryError):
            self.fallbacks += 1
            if len(images) == 1:
                raise OutOfMemory("the device has no memory left for this row") from None
        middle = len(images) // 2
        self.chunk = max(1, min(self.chunk, middle))
        first, second = (
            self.run(images[:middle], queries[:middle]),
            self.run(images[middle:], queries[middle:]),
        )
        return torch.cat([first[0], second[0]]), first[1] + second[1]

    def _run(self, images: Tensor, queries: Sequence[Sequence[Query]]) -> tuple[Tensor, list[list[Attribution]]]:
        layers = {self.layer_of(query) for row in queries for query in row}
        if not layers:
            with torch.inference_mode():
                return self.model(images), [[] for _ in queries]
        taps = {layer for layer in layers if layer is not None}
        closed = {self.head.layer} if self.head else set()
        to_input = None in layers
        graph = to_input or bool(taps - closed)
        grad_mode = torch.enable_grad() if graph else torch.no_grad()
        with self._taps.recording(taps, graph) as recording, torch.inference_mode(False), grad_mode:
            # A caller's inference tensor cannot become a leaf; a copy of it can.
            images = images.clone() if images.is_inference() else images
            inputs = images.detach().requires_grad_() if to_input else images
            # A copy goes on: the network's first operation may work in place.
            logits = self.model(inputs.clone() if to_input else inputs)
            return logits.detach(), self._attributions(inputs, logits, recording, closed, queries)

    def _attributions(
        self,
        inputs: Tensor,
        logits: Tensor,
        recording: Recording,
        closed: set[str],
        queries: Sequence[Sequence[Query]],
    ) -> list[list[Attribution]]:
        """A wave holds one query of each row at most: one backward pass of the summed scores answers all of it."""
        answers: list[list[Attribution]] = [[] for _ in queries]
        depth = max(len(row) for row in queries)
        for wave in range(depth):
            asked = [(row, asks[wave]) for row, asks in enumerate(queries) if len(asks) > wave]
            rows = torch.tensor([row for row, _ in asked], device=logits.device)
            targets, contrasts = _targets(logits.detach(), rows, [query for _, query in asked])
            scores = logits[rows, targets] - torch.where(contrasts < 0, 0.0, logits[rows, contrasts.clamp_min(0)])
            layers = [self.layer_of(query) for _, query in asked]
            open_layers = [name for name in dict.fromkeys(layers) if name is not None and name not in closed]
            sources = [recording.activations[name] for name in open_layers]
            sources += [inputs] if None in layers else []
            gradients = dict(
                zip(
                    [*open_layers, *([None] if None in layers else [])],
                    _gradients(scores, sources, wave < depth - 1),
                )
            )
            indices = _resolved(targets, [query for _, query in asked])
            for layer, method in dict.fromkeys(zip(layers, (METHODS[query.method] for _, query in asked))):
                members = [k for k, (_, q) in enumerate(asked) if layers[k] == layer and METHODS[q.method] == method]
                pick = torch.tensor(members, device=logits.device)
                values = self._signal(
                    method, layer, rows[pick], targets[pick], contrasts[pick], inputs, recording, gradients
                )
                for k, value in zip(members, values.detach()):
                    row, query = asked[k]
                    answers[row].append(Attribution(replace(query, target=indices[k]), value))
        return answers

    def _signal(
        self,
        method: Method,
        layer: str | None,
        rows: Tensor,
        targets: Tensor,
        contrasts: Tensor,
        inputs: Tensor,
        recording: Recording,
        gradients: dict[str | None, Tensor],
    ) -> Tensor:
        if layer is None:
            return method.attribute(InputSignal(inputs.detach()[rows], gradients[None][rows]))
        activations = recording.activations[layer].detach()[rows]
        if layer in gradients:
            return method.attribute(LayerSignal(activations, gradients[layer][rows], None))
        assert self._weight is not None
        weights = self._weight[targets]
        weights = weights - self._weight[contrasts.clamp_min(0)] * (contrasts >= 0)[:, None]
        # The gradient of a linear layer over a mean is known: the weight, shared out over the places.
        flat = weights[:, :, None, None] / activations[0, 0].numel()
        return method.attribute(LayerSignal(activations, flat.expand_as(activations), weights))

    def smooth(self, image: Tensor, query: Query) -> Iterator[Statistic]:
        """Yields the running statistic of a query after each chunk of noisy copies, until its samples are done.

        image: (C, H, W). `query.target` must be fixed (the class that the clean image was found to be).
        The chunk is read anew at each step, so a caller may change it.
        """
        assert query.target is not None
        noise = Noise(image, query.noise_level, query.seed)
        statistic = Statistic(METHODS[query.method].statistic)
        while statistic.samples < query.samples:
            count = min(self.chunk, query.samples - statistic.samples)
            _, attributions = self.run(noise.draw(statistic.samples, count), [[query]] * count)
            statistic.update(torch.stack([row[0].values for row in attributions]))
            yield statistic

    def explain(self, images: Tensor, query: Query | None = None) -> list[Attribution]:
        """Explains each of `images`, (N, C, H, W), by the same query: the way in for notebooks and batch jobs."""
        query = query or Query()
        self.check(query.method)
        if not query.smoothed:
            return [row[0] for row in self.run(images, [[query]] * len(images))[1]]
        ranked = self.run(images, [[]] * len(images))[0].topk(query.rank + 1).indices[:, query.rank].tolist()
        return [self._smoothed(image, query, target) for image, target in zip(images, ranked)]

    def _smoothed(self, image: Tensor, query: Query, predicted: int) -> Attribution:
        query = query.at(predicted)
        statistic = None
        for statistic in self.smooth(image, query):  # noqa: B007 - the last one is the answer
            pass
        assert statistic is not None
        return summary(query, statistic)

    def close(self) -> None:
        """Takes the hooks off; the model stays frozen."""
        self._taps.remove()

    def _prove(self, example: Tensor) -> None:
        """Every tapped layer carries a gradient to the score, changes no score, and the closed form agrees."""
        plain, _ = self.run(example, [[]])
        head, self.head = self.head, None  # autograd alone, first
        for layer in self.layers:
            try:
                logits, by_autograd = self.run(example, [[Query("gradcam", target=0, layer=layer)]])
            except (RuntimeError, IndexError) as error:
                raise UnsuitableModel(
                    f"layer {layer!r} cannot be explained: its activation must be a tensor (N, K, h, w) "
                    f"that the class scores depend on ({type(error).__name__})"
                ) from error
            if not torch.allclose(logits, plain, rtol=1e-4, atol=1e-4):
                raise UnsuitableModel(f"layer {layer!r}: recording it changes the prediction; name another one")
            if by_autograd[0][0].values.ndim != 2:
                raise UnsuitableModel(f"layer {layer!r}: its activation is not of shape (N, K, h, w)")
            if head is not None and head.layer == layer:
                self.head = head
                _, in_closed_form = self.run(example, [[Query("gradcam", target=0, layer=layer)]])
                self.head = None
                if not same(by_autograd[0][0].values, in_closed_form[0][0].values):
                    raise UnsuitableModel(f"layer {layer!r}: the closed-form gradient differs from autograd's")
        self.head = head

    def _suitable_chunk(self, example: Tensor) -> int:
        """On a GPU what a quarter of the free memory holds, 64 at most; on a CPU larger chunks were only slower."""
        if self.device.type != "cuda":
            return 4
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.run(example, [[Query("gradient", target=0)]])
        row = max(1, torch.cuda.max_memory_allocated(self.device) - before)
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(min(64, max(1, free // 4 // row)))


def summary(query: Query, statistic: Statistic) -> Attribution:
    """The attribution that a running statistic stands for."""
    return Attribution(query, statistic.value(), statistic.standard_error(), statistic.relative_error())


def _targets(logits: Tensor, rows: Tensor, queries: Sequence[Query]) -> tuple[Tensor, Tensor]:
    """Class indices of the queries' targets and contrasts (-1 for none), without a copy back to the host."""
    given = torch.tensor(
        [[-1 if q.target is None else q.target, q.rank, -1 if q.contrast is None else q.contrast] for q in queries],
        device=logits.device,
    )
    targets, ranks, contrasts = given.unbind(1)
    if any(query.target is None for query in queries):
        ranked = logits.topk(max(query.rank for query in queries) + 1).indices
        targets = torch.where(targets < 0, ranked[rows, ranks], targets)
    return targets, contrasts


def _gradients(scores: Tensor, sources: Sequence[Tensor], keep: bool) -> Sequence[Tensor]:
    return torch.autograd.grad(scores.sum(), sources, retain_graph=keep) if sources else ()


def _resolved(targets: Tensor, queries: Sequence[Query]) -> list[int]:
    """The targets on the host; read back from the device only where one was not given."""
    given = [query.target for query in queries]
    return [t for t in given if t is not None] if None not in given else [int(t) for t in targets.tolist()]
