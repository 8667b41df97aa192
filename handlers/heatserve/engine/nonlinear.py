"""Nonlinear calls: the functions of torch whose local derivative is known, and that derivative.

A call is known by its function's name: a module, a function, a method and an operator of the same name are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: Functions of one tensor, element by element. Their derivative comes from autograd, so that it is exact.
_ELEMENTWISE = {
    "abs", "absolute", "celu", "clamp", "clamp_max", "clamp_min", "clip", "elu", "expit", "gelu", "hardsigmoid",
    "hardswish", "hardtanh", "leaky_relu", "log_sigmoid", "logsigmoid", "mish", "prelu", "relu", "relu6", "selu",
    "sigmoid", "silu", "softplus", "softsign", "special_expit", "square", "tanh", "threshold",
}  # fmt: skip
_PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__", "__imul__"}
_POOLS = {"max_pool2d", "max_pool2d_with_indices"}


@dataclass(frozen=True)
class Call:
    """A call of a function that has a rule.

    kind: "elementwise", "product" or "pool".
    name: of the function, without the underscore of the one that works in place.
    operands: the one tensor that it is a function of, or the two factors of a product.
    """

    kind: str
    name: str
    func: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    operands: tuple[Tensor, ...]

    def of(self, *operands: Tensor) -> Any:
        """The function's value at other operands; a function that works in place changes the first of them."""
        if self.args:
            return self.func(*operands[: len(self.args)], *self.args[len(operands) :], **self.kwargs)
        return self.func(**{**self.kwargs, _named(self.kwargs): operands[0]})


def call_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call | None:
    """The call as one that has a rule; None for any other."""
    name = name_of(func)
    plain = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    if plain in _PRODUCTS:
        factors = tuple(args[:2])
        both = len(factors) == 2 and all(isinstance(one, Tensor) and one.is_floating_point() for one in factors)
        return Call("product", plain, func, args, kwargs, factors) if both else None
    kind = "elementwise" if plain in _ELEMENTWISE else "pool" if plain in _POOLS else ""
    given = args[0] if args else kwargs.get(_named(kwargs))
    if not kind or not isinstance(given, Tensor) or not given.is_floating_point():
        return None
    return Call(kind, plain, func, args, kwargs, (given,))


def name_of(func: Any) -> str:
    """The name of a function of torch; of an attribute's getter, the attribute's name."""
    name = str(getattr(func, "__name__", ""))
    if name in ("__get__", "__set__"):
        name = str(getattr(func.__self__, "__name__", name))
    return name if name.startswith("__") else name.partition(".")[0]


def _named(kwargs: Mapping[str, Any]) -> str:
    return "self" if "self" in kwargs else "input"


def is_count(call: Call) -> bool:
    """Whether the derivative is 0 or 1 everywhere, so that its sum is a count."""
    return call.kind == "pool" or _passing(call) is not None


def derivatives(call: Call, pooled: Tensor | None = None) -> tuple[Tensor, ...]:
    """What the backward pass of a call multiplies with, one tensor for each operand, with the rows as first axis.

    Of an element-wise function it is its derivative; of a product, for each factor the other one; of a pooling, which
    position of each window is the largest, (N, C, positions, h, w). It is boolean where `is_count`.

    pooled: the indices that the pooling gave.
    """
    if call.kind == "product":
        return call.operands[1], call.operands[0]
    if call.kind == "pool":
        assert pooled is not None
        return (Pool.of(call).chosen(pooled),)
    passing = _passing(call)
    return (passing(call.operands[0]) if passing else _by_autograd(call),)


def _by_autograd(call: Call) -> Tensor:
    given = call.operands[0]
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(given.device.type, enabled=False):
        wide = given if given.dtype == torch.float64 else given.float()
        leaf = wide.detach().clone().requires_grad_()
        # A graph takes no tensor of inference mode; its copy it takes.
        args = [_copied(one) for one in call.args]
        kwargs = {name: _copied(one) for name, one in call.kwargs.items()}
        # A function that works in place must not change a leaf.
        value = replace(call, args=args, kwargs=kwargs).of(leaf.clone())
        (found,) = torch.autograd.grad(value.sum(), leaf)
    return found


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _passing(call: Call) -> Callable[[Tensor], Tensor] | None:
    """The function that says where the derivative is 1; None where it has other values than 0 and 1.

    A bound itself counts as autograd counts it: a clamp passes there, a ReLU and a hardtanh do not.
    """
    name = call.name
    if name == "relu":
        return lambda x: x > 0
    between = open_bounds(call)
    if between is not None:
        low, high = between
        return lambda x: (x > low) & (x < high)
    if name not in ("clamp", "clip", "clamp_min", "clamp_max"):
        return None
    least = None if name == "clamp_max" else _argument(call, 1, "min", None)
    most = None if name == "clamp_min" else _argument(call, 1 if name == "clamp_max" else 2, "max", None)
    if isinstance(least, Tensor) or isinstance(most, Tensor):
        return None
    least, most = -math.inf if least is None else least, math.inf if most is None else most
    return lambda x: (x >= least) & (x <= most)


def open_bounds(call: Call) -> tuple[float, float] | None:
    """The bounds of a ReLU6 or a hardtanh, at which the derivative is 0 already; None for another call."""
    if call.name == "hardtanh":
        return float(_argument(call, 1, "min_val", -1.0)), float(_argument(call, 2, "max_val", 1.0))
    return (0.0, 6.0) if call.name == "relu6" else None


def _argument(call: Call, place: int, name: str, default: Any) -> Any:
    return call.args[place] if len(call.args) > place else call.kwargs.get(name, default)


@dataclass(frozen=True)
class Pool:
    """The windows of one maximum pooling of (N, C, H, W).

    kernel, stride, padding, dilation: (rows, columns).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool
    size: tuple[int, int]

    @classmethod
    def of(cls, call: Call) -> Pool:
        """The windows of a call."""
        kernel = _pair(_argument(call, 1, "kernel_size", None))
        return cls(
            kernel,
            _pair(_argument(call, 2, "stride", None) or kernel),
            _pair(_argument(call, 3, "padding", 0)),
            _pair(_argument(call, 4, "dilation", 1)),
            bool(_argument(call, 5, "ceil_mode", False)),
            (call.operands[0].shape[-2], call.operands[0].shape[-1]),
        )

    def pool(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """The maxima, and their indices in the flat picture."""
        found: tuple[Tensor, Tensor] = functional.max_pool2d(
            given, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )
        return found

    def chosen(self, indices: Tensor) -> Tensor:
        """Which position of each window is the largest, boolean, (N, C, positions, h, w)."""
        width = self.size[1]
        places = (indices // width, indices % width)
        position = torch.zeros_like(indices)
        for axis, place in enumerate(places):
            starts = torch.arange(indices.shape[2 + axis], device=indices.device) * self.stride[axis]
            starts = (starts - self.padding[axis]).view(-1, 1) if axis == 0 else starts - self.padding[axis]
            position = position * self.kernel[axis] + (place - starts) // self.dilation[axis]
        positions = torch.arange(self.kernel[0] * self.kernel[1], device=indices.device)
        return position.unsqueeze(2) == positions.view(-1, 1, 1)

    def spread(self, gradient: Tensor, shares: Tensor) -> Tensor:
        """The gradient (N, C, H, W) of the pictures, where each window gives its own to its positions by their shares.

        gradient: (N, C, h, w). shares: (N, C, positions, h, w).
        """
        parts = (gradient.unsqueeze(2) * shares).flatten(3).flatten(1, 2)
        reach = tuple(
            (gradient.shape[2 + axis] - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
            for axis in (0, 1)
        )
        whole = functional.fold(parts, reach, self.kernel, self.dilation, 0, self.stride)
        # The windows begin in the padding, and with `ceil_mode` they may end behind the picture, or before its end.
        (top, left), (height, width) = self.padding, self.size
        beyond = [max(0, start + side - far) for start, side, far in zip(self.padding, self.size, reach)]
        whole = functional.pad(whole, (0, beyond[1], 0, beyond[0]))
        return whole[:, :, top : top + height, left : left + width]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))
