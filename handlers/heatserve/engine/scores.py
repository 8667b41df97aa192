"""What a network answers with must be scores before any softmax or sigmoid, two of them at least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel

#: Sums of probabilities are 1 within this.
_ROUNDING = 1e-2
_SQUASHING = ("SigmoidBackward", "SoftmaxBackward", "HardsigmoidBackward")
#: Operations that only hand on what was squashed before.
_PASSING = (
    "View",
    "UnsafeView",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "ToCopy",
    "Slice",
    "Cat",
    "Rsub",
    "Permute",
)
_STEPS = 6


def prove_scores(model: nn.Module, example: Tensor, scores: Tensor) -> None:
    """Raises UnsuitableModel where the answers cannot be scores.

    example: (N, C, H, W), and scores, (N, classes), the answer to it. Only where all of them lie between 0 and 1 the
    model is asked further.
    """
    if scores.shape[1] < 2:
        raise UnsuitableModel(
            "the model answers with one score for each picture, whose softmax is 1 for every picture; give it a second "
            "class: `torch.cat([torch.zeros_like(score), score], 1)` has the same sigmoid as its second probability"
        )
    if not _between(scores):
        return
    asked = torch.cat([-example, 10 * example, -1000 * example, torch.zeros_like(example[:1])])
    with torch.no_grad():
        answers = torch.cat([scores, model(asked)])
    if not _between(answers):
        return
    if _sums_to_one(answers):
        _refuse("of each picture they sum to 1")
    if _ends_in_squashing(model, example):
        _refuse("a sigmoid or softmax is the network's last operation")
    if _cannot_be_pushed_out(model, example):
        _refuse("nothing in a picture moves one out of that range")


def _refuse(evidence: str) -> None:
    raise UnsuitableModel(
        f"the model's scores look like probabilities already: all lie between 0 and 1, and {evidence}; let it give the "
        "scores before its softmax or sigmoid (several labels at once, a sigmoid for each, are not served yet)"
    )


def _between(scores: Tensor) -> bool:
    """Whether all that are numbers lie between 0 and 1."""
    known = scores[scores.isfinite()]
    return len(known) > 0 and bool(((known >= 0) & (known <= 1)).all())


def _sums_to_one(scores: Tensor) -> bool:
    known = scores[scores.isfinite().all(1)]
    return len(known) > 0 and bool(((known.double().sum(1) - 1).abs() <= _ROUNDING).all())


def _ends_in_squashing(model: nn.Module, example: Tensor) -> bool:
    """Whether the last operation that makes new numbers is a softmax or a sigmoid."""
    left, found = [_scores(model, example.detach().clone().requires_grad_()).grad_fn], []
    while left:
        function = left.pop()
        if function is not None and type(function).__name__.startswith(_PASSING):
            left += [before for before, _ in function.next_functions]
        else:
            found.append(type(function).__name__.startswith(_SQUASHING))
    return all(found)


def _cannot_be_pushed_out(model: nn.Module, example: Tensor) -> bool:
    """Whether following its gradient up and down moves a score far, and never below 0 or above 1.

    A score that hardly moves shows nothing: a network that has not been trained may well keep all of them near 0.
    """
    lowest, highest = 1.0, 0.0
    spread = float(example.amax() - example.amin()) or 1.0
    for way in (-1, 1):
        pictures = example.detach().clone()
        for step in range(_STEPS):
            pictures.requires_grad_()
            scores = _scores(model, pictures)
            if not scores.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(scores[:, 0].sum(), pictures)
            pictures = pictures.detach() + way * spread * 2**step / 8 * gradient.sign()
            with torch.no_grad():
                moved = model(pictures.clone())[:, 0]
            if not _between(moved):
                return False
            lowest, highest = min(lowest, float(moved.amin())), max(highest, float(moved.amax()))
    return highest - lowest > 0.5


def _scores(model: nn.Module, pictures: Tensor) -> Tensor:
    with torch.enable_grad():
        scores: Tensor = model(pictures.clone())
    return scores
