"""The attention of a network: the matrices of one forward pass, recorded without a hook on any named module.

A mode sees every call of torch while it is on. Fused attention is then computed step by step, so that the weights are a
tensor of the graph; a softmax over the last axis is recorded where its result multiplies values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .errors import UnsuitableModel

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax)
#: Functions whose result is the same attention: none of them changes a value in evaluation mode.
_SAME = (F.dropout, torch.dropout, Tensor.to, Tensor.type_as, Tensor.contiguous, Tensor.clone, Tensor.float)
_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum)


class Attentions(TorchFunctionMode):
    """A context in which one forward pass records its attention.

    graph: whether the pass records a graph. The first matrix then becomes a leaf, so that the network before it records
        nothing.
    """

    def __init__(self, graph: bool) -> None:
        super().__init__()
        self._graph = graph
        self._found: list[Tensor] = []
        self._used: set[int] = set()
        #: The numbers of the recorded matrices by the identity of tensors that hold them; the tensors are kept alive.
        self._numbers: dict[int, tuple[int, Tensor]] = {}

    @property
    def calls(self) -> int:
        """The number of softmaxes over the last of four axes so far, whether they were attention or not."""
        return len(self._found)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of those that multiplied values."""
        return tuple(sorted(self._used))

    @property
    def matrices(self) -> tuple[Tensor, ...]:
        """The attention of each block that multiplied values, first to last: (N, heads, T, T) in a plain transformer.

        Row i has the weights of the tokens that token i is made of.
        """
        return tuple(self._found[number] for number in self.numbers)

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if function is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        result = function(*args, **kwargs)
        if function in _SOFTMAX:
            return self._softmax(result, args, kwargs)
        for argument in args if function is torch.einsum else args[:1]:
            number, _ = self._numbers.get(id(argument), (-1, None))
            if number >= 0 and function in _SAME:
                self._numbers[id(result)] = number, result
            elif number >= 0 and function in _PRODUCTS:
                self._used.add(number)
        return result

    def _record(self, matrix: Tensor) -> Tensor:
        """The matrix as the network goes on with it."""
        if self._graph and not matrix.requires_grad:
            matrix = matrix.detach().requires_grad_()
        self._numbers[id(matrix)] = len(self._found), matrix
        self._found.append(matrix)
        return matrix

    def _softmax(self, result: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        axis = kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else None
        return self._record(result) if result.ndim == 4 and axis in (-1, 3) else result

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Scaled dot product attention, (..., T, d), as torch documents it, with its weights recorded."""
        if dropout_p > 0:
            raise UnsuitableModel("the network drops attention at random, also in evaluation mode")
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        products = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            products = products.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            products = products + attn_mask
        # Fused attention has its softmax in float32, whatever the precision of its products.
        rounded = products.dtype in (torch.bfloat16, torch.float16)
        matrix = self._record(products.softmax(-1, dtype=torch.float32 if rounded else None))
        self._used.add(len(self._found) - 1)
        return matrix.to(value.dtype) @ value

    def _multi_head(self, *args: Any, **kwargs: Any) -> Any:
        """torch's own function, which calls the mode only for the whole of it, with the two calls inside replaced."""
        function = F.multi_head_attention_forward
        heads = inspect.signature(function).bind(*args, **kwargs).arguments["num_heads"]
        inside: dict[str, Callable[..., Any]] = {
            "has_torch_function": lambda _tensors: False,
            "scaled_dot_product_attention": self._attend,
            "softmax": partial(self._softmax_of_heads, heads),
        }
        own = FunctionType(
            function.__code__, {**vars(F), **inside}, function.__name__, function.__defaults__, function.__closure__
        )
        own.__kwdefaults__ = function.__kwdefaults__
        return own(*args, **kwargs)

    def _softmax_of_heads(self, heads: int, products: Tensor, dim: int) -> Tensor:
        """The softmax of (N * heads, T, T), recorded as (N, heads, T, T)."""
        matrix = self._record(products.reshape(-1, heads, *products.shape[1:]).softmax(dim))
        self._used.add(len(self._found) - 1)
        return matrix.flatten(0, 1)


class Unmixed(Attentions):
    """A context in which every token attends to itself alone."""

    def __init__(self) -> None:
        super().__init__(graph=False)

    def _record(self, matrix: Tensor) -> Tensor:
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return super()._record(identity.expand_as(matrix).contiguous())
