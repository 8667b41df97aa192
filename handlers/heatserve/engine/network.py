"""The network below the explainer: a frozen model with its taps, and the passes through it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, nullcontext

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .choice import INPUT, MODEL, LayerChoice
from .errors import UnsuitableModel
from .frozen import freeze, thaw
from .head import linear_head
from .kinds import kind_of, refuse_sealed_layers, sealed
from .late import automatic
from .linearity import plan_or_reason
from .optimize import Optimize, Optimized
from .optimize import optimize as optimized
from .outputs import outputs_of
from .planted import prove_layouts
from .precision import autocast, available, tensor_float_of
from .presence import kept
from .products import combined, factors
from .query import Attribution, Query
from .recorded import Recorded, forward_mode
from .recorded_attention import recording_attention
from .registry import METHODS
from .rows import settle_rows
from .rules import Rules, refused_rules
from .structure import Structure, trace
from .taps import Layer, Taps
from .transformer import transformer_or_reason

#: The scores of a pass, (N, classes), and the attributions of each row.
Answers = tuple[Tensor, list[list[Attribution]]]


class Network:
    """A model in evaluation mode with frozen parameters, hooked once at the layers that maps come from.

    model: gives (N, classes) scores for images (N, C, H, W).
    example: one or more such images on the model's device; one forward pass of them shows the structure.
    layers: the names of the layers to tap; empty for the automatic choice.
    optimize: how the model is made faster, in place: a member of OPTIMIZE (`engine.optimize`).
    precision: a name in PRECISIONS, for the passes of draws; "tf32" becomes "float32" where the device has no TF32.
    activation: the function that makes answers of the scores: "softmax", "sigmoid" or "none".
    head: the name of the output that has the scores, where the model gives several.
    layout: of the layers' activations as an operator declares it, which is then not proved; None proves it.

    Raises UnsuitableModel for a model that does not answer with scores, or a layer that does not exist.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        layers: Sequence[str],
        *,
        optimize: Optimize,
        precision: str,
        activation: str = "softmax",
        head: str | None = None,
        layout: str | None = None,
    ) -> None:
        self.model = model
        self.device = example.device
        self.activation = activation
        self.precision = available(precision, self.device)
        #: In float16 the score is multiplied by this before a backward pass (`engine.proof` finds it).
        self.scale = 1.0
        self._undo = ExitStack()
        freeze(model)
        self._undo.callback(thaw, model)
        try:
            self._read(example, layers, optimize, head, layout)
        except BaseException:
            self.close()
            raise

    def _read(
        self, example: Tensor, layers: Sequence[str], optimize: Optimize, head: str | None, layout: str | None
    ) -> None:
        model = self.model
        refuse_sealed_layers(model, tuple(layers))
        self._undo.callback(settle_rows(model, example))
        outputs = self.outputs = outputs_of(model, example, self.activation, head)
        self._undo.callback(outputs.remove)
        reason = sealed(model)
        #: Whether the model's one score stands for two classes, a label's absence and its presence.
        self.single = outputs.single
        self.structure = Structure(None, None, (), outputs.classes) if reason else trace(model, example)
        self.classes = self.structure.classes
        names = tuple(str(Layer.parse(name)) for name in layers)
        if layout is not None and not names:
            raise UnsuitableModel(f"the layout {layout!r} is declared of no layer; name the layer that has it")
        #: The layouts of the tapped layers' activations, by the layer's name.
        self.layouts = (
            prove_layouts(model, example, names, named=True, declared=layout)
            if names
            else automatic(model, example, self.structure)
        )
        names = names or tuple(self.layouts)
        self.optimized = (
            optimized(model, example, names, self.activation, optimize, self.precision)
            if optimize and all(kind_of(part) == "eager" for part in model.modules())
            else Optimized()
        )
        self._undo.callback(self.optimized.unpack)
        self.head = linear_head(model, self.structure, self.layouts)
        laid = example.contiguous(memory_format=self.optimized.layout)
        self.transformer = reason or transformer_or_reason(model, laid, self.layouts.values())
        unruled = refused_rules(model, laid[:1])
        plan = plan_or_reason(model, laid[:1])
        self.choice = LayerChoice(names, self.structure.candidates, self.head, self.transformer, reason, unruled, plan)
        self._taps = Taps(model, names)
        self._undo.callback(self._taps.remove)

    def passes(
        self,
        images: Tensor,
        queries: Sequence[Sequence[Query]],
        precision: str | None = None,
        *,
        closed_form: bool = True,
        mode: TorchFunctionMode | None = None,
    ) -> Generator[None, None, Answers]:
        """One forward pass and the backward passes that its queries need; yields before each backward pass.

        images: (N, C, H, W).
        queries: one sequence for each image.
        precision: of the passes; None for the mode that the process is in, which predictions have.
        closed_form: False lets autograd compute the gradients that a linear head makes known.
        mode: of the forward pass, in place of that of a rule.
        """
        asked = [[factor for query in row for factor in factors(query)] for row in queries]
        sources = {self.choice.source_of(query) for row in asked for query in row}
        rules = Rules() if any(METHODS[query.method].rule for row in asked for query in row) else None
        taps = {layer for source in sources for layer in source.layers}
        to_input = INPUT in sources
        head = self.head if closed_form else None
        behind = {layer for source in sources if source.backward for layer in source.layers}
        graph = to_input or any(head is None or layer != head.layer for layer in behind)
        graph = graph or any(source.gradients for source in sources)
        given, images = images, images.contiguous(memory_format=self.optimized.layout)
        rounding = tensor_float_of(precision), autocast(precision, self.device)
        attending = recording_attention(self.transformer, sources, graph)
        modes = (self._taps.recording(taps, graph), forward_mode(graph), rounding[0], rounding[1], attending)
        with modes[0] as recording, modes[1], modes[2], modes[3], modes[4] as attention, mode or rules or nullcontext():
            # A caller's inference tensor cannot become a leaf; a copy of it can.
            images = images.clone() if graph and images.is_inference() else images
            inputs = images.detach().requires_grad_() if to_input else images
            # The network gets a copy where its first operation, in place, would change the caller's tensor or the leaf.
            shared = to_input or MODEL in sources or inputs.data_ptr() == given.data_ptr()
            logits = self.model(inputs.clone() if shared else inputs)
        scale = self.scale if precision == "float16" else 1.0
        recorded = Recorded(
            inputs,
            logits,
            recording.activations,
            self.layouts,
            head,
            self.choice.source_of,
            precision,
            scale,
            attention,
            rules,
            self.model,
        )
        left = kept(queries, logits.detach(), self.activation)
        if left is not queries:
            asked = [[factor for query in row for factor in factors(query)] for row in left]
        return logits.detach(), combined(left, (yield from recorded.attributions(asked)))

    def close(self) -> None:
        """Takes the hooks off, and gives the model its own answer, modes and flags back; folds stay."""
        self._undo.close()
