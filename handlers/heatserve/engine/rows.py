"""The rows that a network of TorchScript or torch.export takes: any number of pictures, or one at a time.

Such a network was recorded once. The number of pictures, or the training mode, of the recording may be a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel
from .kinds import kind_of
from .structure import same

#: Numbers of pictures that are tried; the last one is the largest pass of predictions.
_COUNTS = (1, 2, 3, 16)


def settle_rows(model: nn.Module, example: Tensor) -> Callable[[], None]:
    """Lets a recorded network take any number of pictures, one by one if need be. Gives the function that undoes it.

    example: (N, C, H, W).

    Raises UnsuitableModel for a network that takes another number of pictures only, or whose answer for a picture
    changes from call to call or with the other pictures.
    """
    if kind_of(model) not in ("scripted", "exported"):
        return _nothing
    pictures = torch.cat([example, -example])[:2].repeat(8, 1, 1, 1)[: _COUNTS[-1]]
    pictures = pictures * torch.linspace(1, 2, len(pictures)).to(pictures)[:, None, None, None]
    answers = {count: _tried(model, pictures[:count]) for count in _COUNTS}
    alone = answers[1]
    if alone is None:
        raise UnsuitableModel(f"the network does not take one picture alone; {_way_out(model)}")
    undo = _nothing
    if any(answer is None for answer in answers.values()):
        undo = _one_by_one(model)
        answers = {count: _tried(model, pictures[:count]) for count in (1, 3)}
    for count, answer in answers.items():
        rows = None if answer is None else [tensor[:1] for tensor in answer if tensor.ndim and len(tensor) == count]
        again = [tensor for tensor in alone if tensor.ndim and len(tensor) == 1]
        if rows is None or len(rows) != len(again) or not all(same(one, other) for one, other in zip(rows, again)):
            undo()
            raise UnsuitableModel(
                "the network's answer for a picture changes from call to call, or with the number of pictures, as it "
                f"does where the recording was made in training mode or of a fixed number; {_way_out(model)}"
            )
    return undo


def _nothing() -> None:
    """Undoes nothing."""


def _way_out(model: nn.Module) -> str:
    if kind_of(model) == "exported":
        return (
            "call model.eval(), and export it with a free first axis: torch.export.export(model, (images,), "
            "dynamic_shapes=({0: torch.export.Dim('n')},))"
        )
    return "call model.eval(), and let its forward read the number of pictures from its input before it is scripted"


def _tried(model: nn.Module, pictures: Tensor) -> list[Tensor] | None:
    """The tensors of the network's answer; None where it takes another number of pictures."""
    try:
        with torch.no_grad():
            return _tensors(model(pictures.clone()))
    except Exception:  # guards of an exported network raise many types
        return None


def _tensors(answer: Any) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _one_by_one(model: nn.Module) -> Callable[[], None]:
    own = model.forward

    def forward(images: Tensor) -> Any:
        return _joined([own(image) for image in torch.split(images, 1)])

    # A module of TorchScript would hand a set attribute on to the script below it.
    vars(model)["forward"] = forward

    def undo() -> None:
        del vars(model)["forward"]

    return undo


def _joined(answers: Sequence[Any]) -> Any:
    """The answers of several pictures as one."""
    first = answers[0]
    if isinstance(first, Tensor):
        return torch.cat(list(answers)) if first.ndim else torch.stack(list(answers))
    if isinstance(first, dict):
        return {name: _joined([answer[name] for answer in answers]) for name in first}
    return tuple(_joined(parts) for parts in zip(*answers)) if isinstance(first, (tuple, list)) else first
