"""The proof that a network answers with scores before any softmax or sigmoid, and with two of them for a softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from .errors import UnsuitableModel

#: Sums of probabilities are 1 within this, and sums of percentages are 100 within this share.
_ROUNDING = 1e-2
#: Answers to different pictures differ by more than this.
_DIFFERENT = 1e-4
#: Operations that make probabilities, by the stem of autograd's name for them: `SigmoidBackward0`.
_SQUASHING = {"Sigmoid", "Softmax", "Hardsigmoid"}
#: Operations that pass probabilities on and make none.
_PASSING = {
    "View",
    "UnsafeView",
    "Reshape",
    "ReshapeAlias",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "ToCopy",
    "Slice",
    "Cat",
    "Rsub",
    "T",
    "Transpose",
    "Permute",
    "Clamp",
    "ClampMin",
    "ClampMax",
    "Stack",
    "Select",
    "Index",
    "IndexSelect",
    "Mul",
    "Expand",
    "Unbind",
}
#: The steps along a gradient that are tried each way.
_STEPS = 6

#: A network, as images (N, C, H, W) and its answer (N, classes).
Model = Callable[[Tensor], Tensor]


def prove_scores(model: Model, example: Tensor, scores: Tensor, activation: str = "softmax") -> None:
    """Raises UnsuitableModel where the answers cannot be scores.

    example: (N, C, H, W).
    scores: the model's answer to it, (N, classes).
    activation: the declared one. With "none" the answers are values, which may lie anywhere.

    The model is asked about further pictures only where these scores lie between 0 and 1, or have a common sum.
    """
    if activation == "softmax" and scores.shape[1] < 2:
        raise UnsuitableModel(
            "the model answers with one score for each picture, whose softmax is 1 for every picture; add "
            "`explain: {activation: sigmoid}` where it says how likely one label is, or `explain: {activation: none}` "
            "where it is a value; or give it a second class: `torch.cat([torch.zeros_like(score), score], 1)` has the "
            "same sigmoid as its second probability"
        )
    if activation == "none":
        if _between(scores) and _ends_in_squashing(model, example):
            _refuse("a sigmoid or softmax is the network's last operation")
        return
    if not (_between(scores) or _common_sum(scores)):
        return
    asked = torch.cat([-example, 10 * example, -1000 * example, torch.zeros_like(example[:1])])
    with torch.no_grad():
        answers = torch.cat([scores, model(asked)])
    total, spread = _common_sum(answers), _spread(answers)
    # Normalised scores have a common sum too, but no single score is nearly the whole of it.
    if total and spread > (_DIFFERENT if abs(total - 1) <= _ROUNDING else 0.5 * total):
        _refuse(f"of each picture they sum to {total:.4g}", total)
    if not _between(answers):
        return
    if _ends_in_squashing(model, example):
        _refuse("a sigmoid or softmax is the network's last operation")
    if (spread > 0.5 and _stays(model, example)) or _cannot_be_pushed_out(model, example):
        _refuse("nothing in a picture moves one out of that range")


def refuse_squashed(found: str, fitting: str, activation: str, classes: int) -> NoReturn:
    """Refuses a network whose forward ends in another activation than the declared one.

    found: the name of the function that its forward ends in.
    fitting: the activation that goes with it.
    activation: the declared one.
    classes: the number of scores.
    """
    if fitting == "softmax" and classes < 2:
        raise UnsuitableModel(
            f"the model's forward ends in a {found} of one score, which is the same for every picture; let it give the "
            "score itself"
        )
    raise UnsuitableModel(
        f"the model's scores look like probabilities already: {_range(found)}a {found} is the last operation of its "
        f"forward, but explain.activation is {activation}; write `explain: {{activation: {fitting}}}` if that is "
        "right, or let it give the scores before its softmax or sigmoid"
    )


def refuse_sealed(found: str) -> NoReturn:
    """Refuses a compiled or scripted network that ends in a sigmoid or softmax, which cannot be left out there.

    found: the name of the function.
    """
    raise UnsuitableModel(
        f"the model's scores look like probabilities already: {_range(found)}a {found} is its last operation, "
        "which cannot be left out of a compiled or scripted network; compile or script one that gives the scores "
        "before it, or give the eager network"
    )


def refuse_unlike(found: str) -> NoReturn:
    """Refuses a network whose answer is not this function of the values before it, for all pictures, over the classes.

    found: the name of the function.
    """
    raise UnsuitableModel(
        f"the model's scores look like probabilities already: {_range(found)}its forward ends in a {found}, but not in "
        "one of each picture's own scores; let it give the scores before its softmax or sigmoid"
    )


def _range(found: str) -> str:
    return "" if found.startswith("log") else "all lie between 0 and 1, and "


def _refuse(evidence: str, most: float = 1.0) -> NoReturn:
    raise UnsuitableModel(
        f"the model's scores look like probabilities already: all lie between 0 and {most:.4g}, and {evidence}; no "
        "sigmoid or softmax is seen as the last operation of its forward, which could be left out: let it give the "
        "scores before its softmax or sigmoid, and say which it was with `explain: {activation: softmax}` or `sigmoid`"
    )


def _between(scores: Tensor) -> bool:
    """Whether all finite scores lie between 0 and 1."""
    known = scores[scores.isfinite()]
    return len(known) > 0 and bool(((known >= 0) & (known <= 1)).all())


def _common_sum(scores: Tensor) -> float | None:
    """The sum of each picture's scores, if it is the same for all pictures and no score is below 0; else None."""
    known = scores[scores.isfinite().all(1)].double()
    if not len(known) or float(known.amin()) < 0:
        return None
    sums = known.sum(1)
    common = float(sums.mean())
    return common if float((sums - common).abs().max()) <= _ROUNDING * common else None


def _spread(scores: Tensor) -> float:
    """The largest difference between two pictures' scores of one class."""
    known = scores[scores.isfinite().all(1)].double()
    return float((known.amax(0) - known.amin(0)).amax()) if len(known) else 0.0


def _stays(model: Model, example: Tensor) -> bool:
    """Whether scores lie between 0 and 1 even for pictures so extreme that a score that grows slowly has left."""
    with torch.no_grad():
        return _between(model(torch.cat([-1e6 * example, 1e6 * example])))


def _ends_in_squashing(model: Model, example: Tensor) -> bool:
    """Whether the last operation that computes new numbers is a softmax or a sigmoid."""
    left, found = [_scores(model, example.detach().clone().requires_grad_()).grad_fn], set()
    while left:
        function = left.pop()
        if function is None:  # a constant
            continue
        stem = type(function).__name__.partition("Backward")[0]
        if stem in _PASSING:
            left += [before for before, _ in function.next_functions]
        else:
            found.add(stem)
    return bool(found) and found <= _SQUASHING


def _cannot_be_pushed_out(model: Model, example: Tensor) -> bool:
    """Whether a score moves far along its gradient, up and down, and no score ever leaves 0 to 1.

    The score of each picture that is nearest to 0.5 is moved, since a sigmoid moves it most. A score that hardly moves
    shows nothing: a network that was not trained may keep all of them near 0.
    """
    lowest, highest = 1.0, 0.0
    spread = float(example.amax() - example.amin()) or 1.0
    chosen: Tensor | None = None
    for way in (-1, 1):
        pictures = example.detach().clone()
        for step in range(_STEPS):
            pictures.requires_grad_()
            scores = _scores(model, pictures)
            if not scores.requires_grad:
                return False
            chosen = (scores.detach() - 0.5).abs().argmin(1, keepdim=True) if chosen is None else chosen
            (gradient,) = torch.autograd.grad(scores.gather(1, chosen).sum(), pictures)
            if not bool(gradient.any()):
                break
            pictures = pictures.detach() + way * spread * 2**step / 8 * gradient.sign()
            with torch.no_grad():
                moved = model(pictures.clone())
            if not _between(moved):
                return False
            of_class = moved.gather(1, chosen)
            lowest, highest = min(lowest, float(of_class.amin())), max(highest, float(of_class.amax()))
        else:
            continue
        if step == 0:  # without a gradient the other way ends at the same picture
            break
    return highest - lowest > 0.5


def _scores(model: Model, pictures: Tensor) -> Tensor:
    with torch.enable_grad():
        scores: Tensor = model(pictures.clone())
    return scores
