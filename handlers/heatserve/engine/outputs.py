"""The way from a model's answer to its scores, (N, classes): the right part of it, before any sigmoid or softmax.

While an explainer is open, each call of the model gives these scores. Closing it gives the model its own answer back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .activation import check_activation, two_classes
from .errors import UnsuitableModel
from .kinds import compiled_in_place, last_function, watchable
from .parts import columns, part_of, scores_of
from .scores import prove_scores, refuse_sealed, refuse_squashed, refuse_unlike
from .watch import Squashed, Watch

#: The largest difference between the model's own answer and the function of its scores, in numbers of few bits.
_ROUNDING = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


class Outputs:
    """A model's answer, turned into scores in each of its calls until `remove`.

    model: in evaluation mode.
    example: (N, C, H, W).
    activation: a name in ACTIVATIONS.
    head: the name or number of the part of the answer that has the scores; None for the only one that may have them.

    classes: the number of scores of each picture.
    part: the name of the part of the model's answer that has the scores; None where the answer itself is the scores.
    single: whether one score stands for two classes, a label's absence and its presence.
    squashed: the name of the function that is the last one in the model's forward, and is left out; None for none.

    Raises UnsuitableModel where no scores are found, where they look like probabilities that nothing leads behind, or
    where the forward ends in another activation than the declared one. The model is as it was then.
    """

    def __init__(self, model: nn.Module, example: Tensor, activation: str, head: str | None) -> None:
        check_activation(activation)
        self.activation, self.head = activation, head
        self.single, self.squashed = False, None  # type: bool, str | None
        self.users = 1
        self._model, self._forward = model, model.forward
        self._had_forward = "forward" in vars(model)
        self._watches, self._installed = watchable(model), False
        answer, squashed = self._ask(example)
        scores = self._read(answer, example)
        self.part = part_of(answer, scores_of(answer, head, len(example)))
        if squashed is None and not self._watches:
            self._refuse_sealed_squashing(example)
        if scores.ndim == 2 and scores.shape[0] > 1 and answer is not scores:
            self._read(self._ask(example[:1])[0], example[:1])  # (classes) of one picture is not (N)
        if squashed is None:
            prove_scores(lambda pictures: self._read(model(pictures), pictures), example, scores, activation)
        else:
            self._prove(squashed, scores, example)
            self.squashed = squashed.by.name
        self.single = activation == "sigmoid" and scores.shape[1] == 1
        self.classes = 2 if self.single else int(scores.shape[1])
        if answer is scores and not self.single and not self.squashed:
            return
        if compiled_in_place(model):
            raise UnsuitableModel(
                "the network was compiled in place, by model.compile(), and its answer cannot be turned into scores; "
                "give torch.compile(model), or the network before it is compiled"
            )
        # No hook is used: modules of TorchScript take none, and the watch must end with forward, whatever ends it. The
        # attribute is set past the module, which would hand it on to the script below it.
        vars(model)["forward"] = self._scores
        self._installed = True

    def _read(self, answer: Any, pictures: Tensor) -> Tensor:
        """The scores, (N, classes), as the answer has them."""
        return columns(scores_of(answer, self.head, len(pictures)), len(pictures))

    def _ask(self, pictures: Tensor) -> tuple[Any, Squashed | None]:
        """The model's own answer, and the values that its scores were made of where they can be seen."""
        with torch.no_grad():
            if not self._watches:
                return self._model(pictures.clone()), None
            with Watch() as watch:
                answer = self._model(pictures.clone())
        return answer, watch.of(scores_of(answer, self.head, len(pictures)))

    def _refuse_sealed_squashing(self, example: Tensor) -> None:
        """Raises UnsuitableModel for a compiled or scripted network that ends in a sigmoid or softmax."""
        name, stance = last_function(self._model), getattr(torch.compiler, "set_stance", None)
        if not name and stance is not None:  # torch >= 2.6 can run a compiled network as it was written
            with torch.no_grad(), stance("force_eager"), Watch() as watch:
                answer = self._model(example.clone())
            found = watch.of(scores_of(answer, self.head, len(example)))
            name = found.by.name if found is not None else ""
        if name:
            refuse_sealed(name)

    def _prove(self, squashed: Squashed, scores: Tensor, example: Tensor) -> None:
        """Proves that the declared activation of the values before the last function is the model's own answer."""
        if squashed.by.activation != self.activation or (self.activation == "softmax" and scores.shape[1] < 2):
            refuse_squashed(squashed.by.name, squashed.by.activation, self.activation, scores.shape[1])
        noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(1)).to(example)
        for pictures in (None, -example, 4 * noise - 2, 30 * noise):
            if pictures is not None:
                answer, found = self._ask(pictures)
                if found is None or found.by is not squashed.by:
                    refuse_unlike(squashed.by.name)
                squashed, scores = found, self._read(answer, pictures)
            before = columns(squashed.before, len(example))
            most = _ROUNDING.get(scores.dtype, 1e-5)
            if not torch.allclose(squashed.by.of(before), scores, rtol=10 * most, atol=most, equal_nan=True):
                refuse_unlike(squashed.by.name)

    def _scores(self, images: Tensor, *arguments: Any, **named: Any) -> Tensor:
        rows = len(images)
        if self.squashed:
            with Watch() as watch:
                answer = self._forward(images, *arguments, **named)
            found = watch.of(scores_of(answer, self.head, rows))
            if found is None or found.by.name != self.squashed:
                raise RuntimeError(f"the model's forward does not end in its {self.squashed} for this picture")
            scores = columns(found.before, rows)
        else:
            scores = self._read(self._forward(images, *arguments, **named), images)
        return two_classes(scores) if self.single else scores

    def remove(self) -> None:
        """Gives the model its own answer back once every explainer that shares it has called this."""
        self.users -= 1
        if self.users or not self._installed:
            return
        if self._had_forward:
            vars(self._model)["forward"] = self._forward
        else:
            del vars(self._model)["forward"]


def outputs_of(model: nn.Module, example: Tensor, activation: str, head: str | None) -> Outputs:
    """The outputs of a model; those of another explainer that is open where it asks for the same.

    Raises UnsuitableModel where another explainer that is open asks for something else.
    """
    found = getattr(vars(model).get("forward"), "__self__", None)
    if isinstance(found, Outputs):
        if (found.activation, found.head) != (activation, head):
            raise UnsuitableModel(
                f"the model is open in an explainer with activation {found.activation!r} and head {found.head!r}; "
                "close that one first"
            )
        found.users += 1
        return found
    return Outputs(model, example, activation, head)
