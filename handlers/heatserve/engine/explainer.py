"""The explainer: one model, its taps, and one forward pass that answers predictions and explanations together."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch
from torch import Tensor, nn

from .errors import OutOfMemory, UnsuitableModel, is_out_of_memory
from .layout import prove_layouts
from .methods import METHODS
from .optimize import Optimized
from .optimize import optimize as optimized
from .precision import autocast, available, of_predictions, tensor_float, tensor_float_of
from .proof import prove, suitable_chunk
from .query import Attribution, Query
from .ranking import ranking
from .recorded import LinearHead, Recorded, forward_mode
from .room import Room
from .smoothing import Smoothing
from .steps import finish
from .structure import trace
from .taps import Layer, Taps


class Explainer:
    """Puts a model in evaluation mode, freezes its parameters and hooks the layers that maps come from, once.

    model: gives (N, classes) scores for images (N, C, H, W). example: one or more such images, on the model's device;
    the structure is read off one forward pass of it. layers: names to tap; none for the automatic choice.
    chunk: noisy copies in one forward; None for a size that suits the device. optimize: fold batch normalisations and
    reorder memory, in the model itself (`engine.optimize`). precision: of the passes of noisy copies, a name in
    PRECISIONS ("tf32" is float32 where the device has none); predictions, and maps that ride on their pass, keep the
    mode that the process is in. What is proved at load is proved in float32.

    Raises UnsuitableModel where no layer is named and the network does not show which one to take.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        layers: Sequence[str] = (),
        chunk: int | None = None,
        *,
        optimize: bool = False,
        precision: str = "float32",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.device = example.device
        self.precision = available(precision, self.device)
        self.scale = 1.0
        self.fallbacks = 0
        with tensor_float(False):
            self._prepare(example, layers, optimize)
        self.chunk = chunk or suitable_chunk(self, example[:1])

    def _prepare(self, example: Tensor, layers: Sequence[str], optimize: bool) -> None:
        """Reads the structure, makes the network faster, taps it, and proves all of it, in float32."""
        model = self.model
        self.structure = trace(model, example)
        self.classes = self.structure.classes
        automatic = (self.structure.layer,) if self.structure.layer else ()
        self.layers = tuple(str(Layer.parse(name)) for name in layers) or automatic
        self.optimized = optimized(model, example, self.layers) if optimize else Optimized()
        self._taps = Taps(model, self.layers)
        self.head = self._linear_head()
        prove(self, example[:1])
        prove_layouts(model, example.contiguous(memory_format=self.optimized.layout), self.layers, bool(layers))

    @property
    def chunk(self) -> int:
        """Noisy copies in one forward pass, for now: fewer after a lack of memory. Set it for another size at best."""
        return self._room.size

    @chunk.setter
    def chunk(self, most: int) -> None:
        self._room = Room(most)

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

    @property
    def rows(self) -> int:
        """How many images a forward pass should have at most: more are not faster, and need memory each."""
        return max(16, self.chunk)

    @property
    def prediction_precision(self) -> str:
        """The precision of predictions, and of maps that ride on their pass: the process's, not `precision`."""
        return of_predictions(self.device)

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
        if query.layer is not None and query.layer not in self.layers:
            raise UnsuitableModel(f"layer {query.layer!r} is not tapped; tapped: {', '.join(self.layers) or 'none'}")
        return query.layer or self.layer

    def run(self, images: Tensor, queries: Sequence[Sequence[Query]]) -> tuple[Tensor, list[list[Attribution]]]:
        """One forward pass: (N, classes) scores, and an attribution at each image itself for each of its queries.

        images: (N, C, H, W) on the model's device; queries: one sequence for each image, empty for a prediction.
        Smoothing is not done here. Where the device's memory is short the batch is halved; OutOfMemory is raised when
        a single row does not fit. Raises ValueError for a class that the network does not have.
        """
        return finish(self.steps(images, queries))

    def steps(
        self, images: Tensor, queries: Sequence[Sequence[Query]], precision: str | None = None
    ) -> Generator[None, None, tuple[Tensor, list[list[Attribution]]]]:
        """`run` in steps: yields between the forward pass and each backward pass, so that a caller may let other work
        in; the graph waits in memory meanwhile. precision: of the passes, None for the one that predictions have."""
        for query in (query for row in queries for query in row):
            if max(query.target or 0, query.contrast or 0, query.rank) >= self.classes:
                raise ValueError(f"the network has {self.classes} classes: {query}")
        try:
            return (yield from self.passes(images, queries, self.head, precision))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.fallbacks += 1
        if len(images) == 1:
            raise OutOfMemory("the device has no memory left for this row")
        middle = len(images) // 2
        self._room.short(len(images))
        first = yield from self.steps(images[:middle], queries[:middle], precision)
        second = yield from self.steps(images[middle:], queries[middle:], precision)
        return torch.cat([first[0], second[0]]), first[1] + second[1]

    def passes(
        self,
        images: Tensor,
        queries: Sequence[Sequence[Query]],
        head: LinearHead | None,
        precision: str | None = None,
    ) -> Generator[None, None, tuple[Tensor, list[list[Attribution]]]]:
        """`steps`, but for what it does where memory is short. head: None where autograd has to find every gradient."""
        layers = {self.layer_of(query) for row in queries for query in row}
        taps = {layer for layer in layers if layer is not None}
        to_input = None in layers
        graph = to_input or any(head is None or layer != head.layer for layer in taps)
        given, images = images, images.contiguous(memory_format=self.optimized.layout)
        rounding = tensor_float_of(precision), autocast(precision, self.device)
        with self._taps.recording(taps, graph) as recording, forward_mode(graph), rounding[0], rounding[1]:
            # A caller's inference tensor cannot become a leaf; a copy of it can.
            images = images.clone() if graph and images.is_inference() else images
            inputs = images.detach().requires_grad_() if to_input else images
            # A copy goes on: the network's first operation may work in place.
            shared = to_input or inputs.data_ptr() == given.data_ptr()
            logits = self.model(inputs.clone() if shared else inputs)
        scale = self.scale if precision == "float16" else 1.0
        recorded = Recorded(inputs, logits, recording.activations, head, self.layer_of, precision, scale)
        return logits.detach(), (yield from recorded.attributions(queries))

    def advance(self, shares: Sequence[tuple[Smoothing, int]]) -> Generator[None, None, None]:
        """So many further samples for each of several smoothed explanations, all in one forward pass.

        In steps, as `steps` is; the explanations change with the last one.
        """
        copies = [smoothing.draw(count) for smoothing, count in shares]
        queries = [[smoothing.query] for smoothing, count in shares for _ in range(count)]
        images = torch.cat(copies) if len(copies) > 1 else copies[0]
        before = self.fallbacks
        _, attributions = yield from self.steps(images, queries, self.precision)
        if self.fallbacks == before:
            self._room.fitted(len(images))
        values = iter(row[0].values for row in attributions)
        for smoothing, count in shares:
            # float16 has nothing between 0 and 6e-8.
            sure = self.precision != "float16"
            smoothing.update(torch.stack([next(values) for _ in range(count)]), zeros_are_zero=sure)

    def settle(self) -> None:
        """Waits until the device has done what it was given: a step that only queued up its work would let a
        prediction wait behind all of it. Nothing to wait for on a CPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def smooth(self, image: Tensor, query: Query) -> Iterator[Smoothing]:
        """Yields the explanation as it stands after each chunk of noisy copies, until its samples are done.

        image: (C, H, W). `query.target` must be fixed (the class that the clean image was found to be).
        The chunk is read anew at each step, so a caller may change it.
        """
        smoothing = Smoothing(image, query)
        while smoothing.left:
            finish(self.advance([(smoothing, min(self.chunk, smoothing.left))]))
            yield smoothing

    def explain(self, images: Tensor, query: Query | None = None) -> list[Attribution]:
        """Explains each of `images`, (N, C, H, W), by the same query: the way in for notebooks and batch jobs."""
        query = query or Query()
        self.check(query.method)
        images = images.clone()  # a network may work in place on its input
        if not query.smoothed:
            return [row[0] for row in self.run(images, [[query]] * len(images))[1]]
        ranked = ranking(self.run(images, [[]] * len(images))[0])[:, query.rank].tolist()
        return [self._smoothed(image, query, target) for image, target in zip(images, ranked)]

    def _smoothed(self, image: Tensor, query: Query, predicted: int) -> Attribution:
        query = query.at(predicted)
        *_, smoothing = self.smooth(image, query)
        return smoothing.estimate()

    def close(self) -> None:
        """Takes the hooks off; the model stays frozen."""
        self._taps.remove()

    def _linear_head(self) -> LinearHead | None:
        found = self.structure.head
        classifier = self.model.get_submodule(found.classifier) if found else None
        if found is None or not isinstance(classifier, nn.Linear):
            return None
        return LinearHead(found.layer, classifier.weight.detach())
