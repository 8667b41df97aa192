"""The choice of a layer: which one a map comes from, and which methods a network can answer."""

from __future__ import annotations

from dataclasses import dataclass

from .derivatives import Plan
from .errors import UnsuitableModel
from .head import LinearHead
from .query import Query
from .registry import METHODS
from .transformer import Transformer


@dataclass(frozen=True)
class Source:
    """The place in a network that a signal is taken from.

    signal: "layer", "input", "attention", "score" or "model".
    layer: the layer's name; None for the other signals. Several names joined by "+" are fused.
    gradients: of a signal of attention: "score" for those of the explained score, "blocks" for those of each block's
        own score, "" for none.
    backward: whether the signal holds a gradient.
    """

    signal: str
    layer: str | None = None
    gradients: str = ""
    backward: bool = True

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers; empty for the other signals."""
        return layers_in(self.layer)


INPUT = Source("input")
MODEL = Source("model", backward=False)


def layers_in(text: str | None) -> tuple[str, ...]:
    """The names of the layers that a query's `layer` joins by "+"."""
    return () if text is None else tuple(text.split("+"))


@dataclass(frozen=True)
class LayerChoice:
    """The layers that maps of one network may come from.

    layers: the names of the tapped layers; the first one is the default.
    candidates: names that a message may suggest where no layer is tapped.
    head: the linear head; None where the network has none.
    transformer: the transformer in the network, or the sentence that says why there is none.
    sealed: the sentence that says why no layer can be recorded; empty where layers can.
    unruled: the sentence that says why no rule of the backward pass can be followed; empty where one can.
    plan: of the local derivatives, or the sentence that says why they cannot be averaged.
    """

    layers: tuple[str, ...]
    candidates: tuple[str, ...]
    head: LinearHead | None
    transformer: Transformer | str
    sealed: str = ""
    unruled: str = ""
    plan: Plan | str = ()

    @property
    def default(self) -> str:
        """The layer of a query that names none. Raises UnsuitableModel where no layer is tapped."""
        if not self.layers and self.sealed:
            raise UnsuitableModel(self.sealed)
        if not self.layers:
            candidates = ", ".join(self.candidates) or "none found"
            raise UnsuitableModel(
                "it is not clear which layer the maps should come from: of no late layer changed pictures show which "
                f"positions are which places; name one with `layer` (candidates: {candidates})"
            )
        return self.layers[0]

    def check(self, method: str) -> None:
        """Raises UnsuitableModel where the network cannot answer a method; the message says why, and which one can."""
        for factor in METHODS[method].factors:
            self.check(factor)
        if METHODS[method].rule and self.unruled:
            raise UnsuitableModel(f"{method} is not possible: {self.unruled}")
        if METHODS[method].statistic == "derivatives" and isinstance(self.plan, str):
            raise UnsuitableModel(f"{method} is not possible: {self.plan}")
        if METHODS[method].signal == "attention" and isinstance(self.transformer, str):
            raise UnsuitableModel(
                f"{method} is not possible: {self.transformer}; use gradient or smoothgrad, which suit any network"
            )
        if not METHODS[method].of_layer:
            return
        layer = self.default
        if METHODS[method].needs_linear_head and (self.head is None or self.head.layer not in self.layers):
            reason = (
                "the network does not end in global average pooling and one linear layer"
                if self.head is None
                else f"layer {layer!r} is not what the network pools (that is {self.head.layer!r})"
            )
            raise UnsuitableModel(f"{method} is not possible: {reason}; use gradcam, which suits any head")

    def methods(self) -> tuple[str, ...]:
        """The names of the methods that the network can answer."""
        return tuple(name for name in METHODS if self._answers(name))

    def _answers(self, method: str) -> bool:
        try:
            self.check(method)
        except UnsuitableModel:
            return False
        return True

    def layer_of(self, query: Query) -> str | None:
        """The layer that a query's map comes from; None for a method of the input or of the score.

        Raises UnsuitableModel for a layer that is not tapped.
        """
        method = METHODS[query.method]
        if not method.of_layer:
            return None
        named = layers_in(query.layer)
        if method.prepare is not None and len(named) > 1:
            raise UnsuitableModel(f"{query.method} has one layer; use gradcam to fuse several")
        if method.needs_linear_head and len(named) > 1:
            raise UnsuitableModel(f"{query.method} has one layer, the one that is pooled; use gradcam to fuse several")
        if method.needs_linear_head and self.head is not None:
            return self.head.layer
        for layer in named:
            if layer not in self.layers:
                raise UnsuitableModel(f"layer {layer!r} is not tapped; tapped: {', '.join(self.layers) or 'none'}")
        return query.layer or self.default

    def source_of(self, query: Query) -> Source:
        """The source of a query's signal. Raises UnsuitableModel for a layer that is not tapped."""
        method = METHODS[query.method]
        if query.prepares:
            return Source("layer", self.layer_of(query), backward=False)
        if method.signal in ("score", "model"):
            return Source(method.signal, backward=False)
        gradients = ""
        if method.signal == "attention" and method.needs_backward:
            gradients = "blocks" if method.layerwise else "score"
        return Source(method.signal, self.layer_of(query), gradients, method.needs_backward)
