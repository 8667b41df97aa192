"""The part of a model's answer that has the scores: a tensor, or one of a tuple, a dictionary or a data class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from .errors import UnsuitableModel

#: The name of the part with the scores where nobody gives one, as the models of Hugging Face have it.
_SCORES = "logits"


def scores_of(answer: Any, head: str | None, rows: int) -> Tensor:
    """The tensor of an answer that has the scores.

    head: its name, or its number in a tuple; None for `logits`, or the only part that may have scores.
    rows: the number of pictures that were asked about.

    Raises UnsuitableModel where there is no such part, or where it is not clear which one is meant.
    """
    parts = _parts(answer)
    if isinstance(answer, Tensor) or parts is None:
        if head is not None:
            raise UnsuitableModel(
                f"explain.head is {head!r}, but the model answers with one {type(answer).__name__}; remove explain.head"
            )
        if parts is None and not isinstance(answer, Tensor):
            raise UnsuitableModel(
                f"the model answers with a {type(answer).__name__}, not one tensor of class scores, or a tuple or "
                "dictionary that has one; let its forward return such an answer"
            )
        return answer  # type: ignore[no-any-return]
    if head is not None:
        if not isinstance(parts.get(head), Tensor):
            names = ", ".join(name for name, part in parts.items() if isinstance(part, Tensor)) or "none"
            raise UnsuitableModel(
                f"explain.head is {head!r}, but the model's answer has no tensor of that name; its tensors: {names}"
            )
        return parts[head]  # type: ignore[no-any-return]
    if isinstance(parts.get(_SCORES), Tensor):
        return parts[_SCORES]  # type: ignore[no-any-return]
    found = [name for name, part in parts.items() if isinstance(part, Tensor) and _columns_of(part, rows)]
    if len(found) == 1:
        return parts[found[0]]  # type: ignore[no-any-return]
    if not found:
        raise UnsuitableModel(
            f"the model answers with a {type(answer).__name__}, not one tensor of class scores, and no part of it is a "
            f"tensor (N, classes): {_described(parts)}; let its forward return one"
        )
    raise UnsuitableModel(
        f"the model answers with a {type(answer).__name__} of which several parts may be scores: {_described(parts)}; "
        f"name one of them with explain.head, as in `explain: {{head: {found[0]}}}`"
    )


def part_of(answer: Any, scores: Tensor) -> str | None:
    """The name of the part of an answer that is `scores`; None where the answer itself is."""
    parts = (_parts(answer) or {}) if answer is not scores else {}
    return next((name for name, part in parts.items() if part is scores), None)


def columns(scores: Tensor, rows: int) -> Tensor:
    """The scores as (N, classes): (N) is one score for each picture, and axes of length 1 behind the classes go.

    rows: N. Raises UnsuitableModel for another shape.
    """
    if not _columns_of(scores, rows):
        raise UnsuitableModel(
            f"the model answers with shape {tuple(scores.shape)}, not (N, classes), for N = {rows} pictures"
        )
    if scores.ndim == 2:
        return scores
    return scores.reshape(rows, -1)


def _columns_of(scores: Tensor, rows: int) -> bool:
    """Whether a tensor may be scores: (N, classes), also with axes of length 1 behind them, (N), or one number."""
    if not scores.is_floating_point() or not scores.numel():
        return False
    if scores.ndim == 0:
        return rows == 1
    return scores.shape[0] == rows and all(size == 1 for size in scores.shape[2:])


def _parts(answer: Any) -> dict[str, Any] | None:
    """The parts of an answer by name; None for an answer that has none."""
    if isinstance(answer, Mapping):
        return {str(name): part for name, part in answer.items()}
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer))
    if isinstance(answer, (tuple, list)):
        return {str(number): part for number, part in enumerate(answer)}
    if is_dataclass(answer) and not isinstance(answer, type):
        return {field.name: getattr(answer, field.name) for field in fields(answer)}
    if isinstance(answer, Tensor) or not hasattr(answer, "__dict__"):
        return None
    return {name: part for name, part in vars(answer).items() if isinstance(part, Tensor)} or None


def _described(parts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {tuple(part.shape)}" if isinstance(part, Tensor) else f"{name} ({type(part).__name__})"
        for name, part in parts.items()
    )
