"""The watch of a forward pass: it knows the values that a sigmoid or softmax was made of, up to the pass's answer.

For each tensor that such a function gives, the watch keeps the function's input beside it. An operation that only
passes numbers on, such as `squeeze` or `cat`, is done to both. It changes no result of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Squashing:
    """A function that makes probabilities of scores, or their logarithms.

    name: as a message says it.
    activation: the name of the activation that gives the same probabilities.
    of: gives the function's values, (N, classes), for scores (N, classes).
    """

    name: str
    activation: str
    of: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Squashed:
    """A tensor with the values that it was made of.

    tensor: the function's values, in the shape that they have now.
    before: the function's input in the same shape.
    by: the function.
    """

    tensor: Tensor
    before: Tensor
    by: Squashing


_SIGMOID = Squashing("sigmoid", "sigmoid", torch.sigmoid)
_SOFTMAX = Squashing("softmax", "softmax", lambda scores: scores.softmax(1))
_LOG_SIGMOID = Squashing("log-sigmoid", "sigmoid", functional.logsigmoid)
_LOG_SOFTMAX = Squashing("log-softmax", "softmax", lambda scores: scores.log_softmax(1))

#: The functions by the names that torch gives them as functions, methods and operators.
_SQUASHING = {
    "sigmoid": _SIGMOID,
    "expit": _SIGMOID,
    "special_expit": _SIGMOID,
    "softmax": _SOFTMAX,
    "_softmax": _SOFTMAX,
    "special_softmax": _SOFTMAX,
    "logsigmoid": _LOG_SIGMOID,
    "log_sigmoid": _LOG_SIGMOID,
    "log_softmax": _LOG_SOFTMAX,
    "_log_softmax": _LOG_SOFTMAX,
    "special_log_softmax": _LOG_SOFTMAX,
}

#: Operations that give numbers of their inputs in another shape, order, number or precision.
_PASSING = {
    "view", "reshape", "view_as", "reshape_as", "squeeze", "unsqueeze", "flatten", "unflatten",
    "ravel", "clone", "contiguous", "alias", "to", "_to_copy", "type", "type_as",
    "float", "double", "half", "bfloat16", "cpu", "cuda", "transpose", "swapaxes",
    "swapdims", "permute", "movedim", "moveaxis", "t", "T", "mT", "adjoint",
    "__getitem__", "select", "slice", "narrow", "index_select", "take_along_dim", "expand", "unbind",
    "split", "chunk", "tensor_split", "cat", "concat", "concatenate", "stack", "hstack",
}  # fmt: skip


class Watch(TorchFunctionMode):
    """A mode for one forward pass, after which `of` is asked about its answer."""

    def __init__(self) -> None:
        super().__init__()
        self._squashed: dict[int, Squashed] = {}

    def of(self, tensor: Tensor) -> Squashed | None:
        """The values that a tensor was made of; None where no known function made it."""
        return self._squashed.get(id(tensor))

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        in_place = name.endswith("_") and not name.startswith("__")
        changes = in_place or name.startswith(("__i", "__set")) or "out" in kwargs
        if self._squashed and changes and any(id(tensor) in self._squashed for tensor in _tensors([args, kwargs])):
            self._squashed.clear()  # the changed tensor may be a view of any of them
        by = _SQUASHING.get(name[:-1] if in_place else name)
        if by is not None:
            return self._squash(by, func, args, kwargs)
        result = func(*args, **kwargs)
        if self._squashed and name in _PASSING:
            self._pass(func, args, kwargs, result)
        return result

    def _squash(self, by: Squashing, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        given = next((tensor for tensor in _tensors([args, kwargs]) if tensor is not kwargs.get("out")), None)
        # Answers are (N, classes). The weights of attention have more axes, and would only take memory.
        small = given is not None and sum(size > 1 for size in given.shape) <= 2
        before = given.clone() if given is not None and small else None
        result = func(*args, **kwargs)
        if before is not None and isinstance(result, Tensor) and result.shape == before.shape:
            self._keep(Squashed(result, before.to(result.dtype), by))
        return result

    def _pass(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        floating = [tensor for tensor in _tensors([args, kwargs]) if tensor.is_floating_point()]
        known = [self._squashed[id(tensor)] for tensor in floating if id(tensor) in self._squashed]
        if not known or len(known) < len(floating) or any(one.by is not known[0].by for one in known):
            return
        before = func(*self._swapped(args), **self._swapped(kwargs))
        for tensor, origin in zip(_tensors([result]), _tensors([before])):
            self._keep(Squashed(tensor, origin, known[0].by))

    def _keep(self, squashed: Squashed) -> None:
        # The tensor is held, so that no other one gets its id.
        self._squashed[id(squashed.tensor)] = squashed

    def _swapped(self, value: Any) -> Any:
        """The value with the origin of each tensor that is known in its place."""
        if isinstance(value, Tensor):
            known = self._squashed.get(id(value))
            return value if known is None else known.before
        if isinstance(value, (list, tuple)):
            parts = [self._swapped(part) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, dict):
            return {key: self._swapped(part) for key, part in value.items()}
        return value


def _name(func: Any) -> str:
    """The name of a function of torch; of an attribute's getter, the attribute's name."""
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        name = str(getattr(func.__self__, "__name__", ""))
    return name if name.startswith("__") else name.partition(".")[0]


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    if not isinstance(values, (list, tuple)):
        return []
    return [tensor for value in values for tensor in _tensors(value)]
