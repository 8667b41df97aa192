"""The explainer: predictions and explanations of one network, at once or in steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from torch import Tensor, nn

from . import smoothdiff
from .activation import probabilities
from .advancing import advance
from .captured import CapturedPasses
from .halving import in_halves
from .launch import launches_of
from .layout import Layout
from .network import Answers, Network
from .precision import of_predictions, tensor_float
from .proof import prove, suitable_chunk
from .query import Attribution, Query
from .ranking import ranking
from .room import Room
from .sizes import sizes_of
from .smoothdiff import Explanation
from .steps import finish


class Explainer:
    """A model that is frozen, hooked and proved once, and then answers predictions and explanations together.

    model: gives (N, classes) scores for images (N, C, H, W).
    example: one or more such images on the model's device; the structure is read off one forward pass of them.
    layers: the names of the layers to tap; empty for the automatic choice.
    chunk: the draws in one forward pass; None for a size that suits the device.
    optimize: how the model itself is made faster: True, "packed" (more memory), "folded" (less) or False
        (`engine.optimize`). A weight that is packed cannot be changed any more: a change in place raises an error, or
        has no effect.
    precision: a name in PRECISIONS, for the passes of draws; "tf32" becomes "float32" where the device has no TF32.
    activation: the function that makes answers of the scores: "softmax", "sigmoid" or "none".
    head: the name of the output that has the scores, where the model gives several.
    layout: of the layers' activations as an operator declares it, which is then not proved; None proves it.

    Predictions, and maps that share their pass, keep the precision that the process is in. The proofs at load are made
    in float32.

    Raises UnsuitableModel for a model or a layer that cannot be explained; no hook stays on it then.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        layers: Sequence[str] = (),
        chunk: int | None = None,
        *,
        optimize: bool | str = False,
        precision: str = "float32",
        activation: str = "softmax",
        head: str | None = None,
        layout: str | None = None,
    ) -> None:
        with tensor_float(False):
            network = Network(
                model,
                example,
                layers,
                optimize=optimize,
                precision=precision,
                activation=activation,
                head=head,
                layout=layout,
            )
        try:
            with tensor_float(False):
                prove(network, example)
                self._room = Room(chunk or suitable_chunk(network, example[:1]), sizes_of(network.device))
        except BaseException:
            network.close()
            raise
        self.network = network
        self.model = network.model
        self.device = network.device
        self.sizes, self.launches = self._room.sizes, launches_of(network.device)
        self.captured = CapturedPasses(network, self.launches)
        self.structure = network.structure
        self.classes = network.classes
        #: Whether the model's one score stands for two classes, a label's absence and its presence.
        self.single = network.single
        self.layers = network.choice.layers
        self.outputs = network.outputs
        self.head = network.head
        self.optimized = network.optimized
        self.precision = network.precision
        self.activation = network.activation

    def probabilities(self, logits: Tensor) -> Tensor:
        """The answers that the scores stand for, (N, classes), by the activation of this network.

        logits: (N, classes), as `run` gives them.
        """
        return probabilities(logits, self.activation)

    @property
    def layer(self) -> str:
        """The layer of a query that names none. Raises UnsuitableModel where no layer is tapped."""
        return self.network.choice.default

    def check(self, method: str) -> None:
        """Raises UnsuitableModel where the network cannot answer a method; the message says why, and which one can."""
        self.network.choice.check(method)

    def methods(self) -> tuple[str, ...]:
        """The names of the methods that this network can answer."""
        return self.network.choice.methods()

    def layer_of(self, query: Query) -> str | None:
        """The layer that a query's map comes from; None for a method that has no layer."""
        return self.network.choice.layer_of(query)

    def layout_of(self, layer: str) -> Layout:
        """The layout of a tapped layer's activation. Raises KeyError for another layer."""
        return self.network.layouts[layer]

    @property
    def prediction_precision(self) -> str:
        """The precision of predictions, and of maps that share their pass: the process's, not `precision`."""
        return of_predictions(self.device)

    @property
    def chunk(self) -> int:
        """The draws that one forward pass may hold now; fewer after a lack of memory. Setting it sets the most."""
        return self._room.size

    @chunk.setter
    def chunk(self, most: int) -> None:
        self._room.reset(most)

    @property
    def rows(self) -> int:
        """The most images that a forward pass should have: more are not faster, and each needs memory."""
        return max(16, self.chunk)

    @property
    def fallbacks(self) -> int:
        """How often a pass had too little memory."""
        return self._room.shortages

    def run(self, images: Tensor, queries: Sequence[Sequence[Query]]) -> Answers:
        """The scores, (N, classes), and one attribution for each query of each image, from one forward pass.

        images: (N, C, H, W) on the model's device.
        queries: one sequence for each image, empty for a prediction.

        Each query is answered at the image itself; nothing is drawn. A query that its `least` drops has no attribution.
        Where the device's memory is short the batch is halved. Raises OutOfMemory where a single row does not fit, and
        ValueError for a class that the network does not have.
        """
        return finish(self.steps(images, queries))

    def steps(
        self, images: Tensor, queries: Sequence[Sequence[Query]], precision: str | None = None
    ) -> Generator[None, None, Answers]:
        """`run` in steps: yields before each backward pass, so that a caller may let other work in.

        The graph stays in memory meanwhile. precision: of the passes; None for the one that predictions have.
        """
        for query in (query for row in queries for query in row):
            if max(query.target or 0, query.contrast or 0, query.rank) >= self.classes:
                classes = "1 class" if self.classes == 1 else f"{self.classes} classes"
                raise ValueError(f"the network has {classes}: {query}")
            if (query.nearest or 0) >= self.classes:
                raise ValueError(f"nearest must be below the number of classes, {self.classes}: {query}")

        def passes(some: Tensor, asked: Sequence[Sequence[Query]]) -> Generator[None, None, Answers]:
            return self.captured.passes(some, asked, precision)

        return (yield from in_halves(passes, images, queries, self._room))

    def advance(self, shares: Sequence[tuple[Explanation, int]]) -> Generator[None, None, None]:
        """Takes further draws for several explanations in few passes (`engine.advancing`); in steps, as `steps` does.

        shares: explanations, and how many draws each one gets.

        The explanations change with the last step.
        """
        yield from advance(smoothdiff.statistics(shares), self.steps, self._room, self.precision)
        yield from smoothdiff.advance(self.network, self._room, shares, self.precision)

    def settle(self) -> None:
        """Waits until the device has done its queued work: else a prediction would wait behind all of it."""
        self.launches.settle()

    def smooth(self, image: Tensor, query: Query) -> Iterator[Explanation]:
        """Yields the explanation as it stands after each chunk of draws, whose size is read anew, until all are taken.

        image: (C, H, W).
        query: its target must be fixed, as the class that the image itself was found to be.
        """
        smoothing = self.begin(image, query)
        while smoothing.left:
            finish(self.advance([(smoothing, min(self.chunk, smoothing.left))]))
            if smoothing.samples:
                yield smoothing

    def begin(self, image: Tensor, query: Query) -> Explanation:
        """An explanation of an image, (C, H, W), without draws so far. It takes a pass if draws need a layer."""
        if query.nearest is not None and query.target is not None:
            query = query.at(query.target, self.run(image[None].clone(), [[]])[0][0])
        at_image = query.at_image
        prepared = None if at_image is None else self.run(image[None].clone(), [[at_image]])[1][0][0].values
        return smoothdiff.begun(image, query, prepared)

    def explain(self, images: Tensor, query: Query | None = None) -> list[Attribution]:
        """One attribution for each image, all by the same query: for notebooks and batch jobs.

        images: (N, C, H, W).
        """
        query = query or Query()
        if query.least is not None:
            raise ValueError("least may leave an image without an attribution; give the query to run")
        self.check(query.method)
        images = images.clone()  # a network may work in place on its input
        if not query.smoothed:
            return [row[0] for row in self.run(images, [[query]] * len(images))[1]]
        scores, _ = self.run(images, [[]] * len(images))
        ranked = ranking(scores)[:, query.rank].tolist()
        return [[*self.smooth(image, query.at(*found))][-1].estimate() for image, *found in zip(images, ranked, scores)]

    def close(self) -> None:
        """Takes the hooks off, and gives the model its own answer, its modes and its gradients back; folds stay."""
        self.captured.drop()
        self.network.close()
