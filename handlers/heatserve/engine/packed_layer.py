"""A layer whose weight is packed: it behaves as the convolution that it was, and can be made that again."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .packed import Ordinary, Packed

_unpack_dual: Any = forward_ad.unpack_dual


class PackedLayer(nn.Conv2d):
    """A convolution whose one weight is packed. Its `weight` is computed when somebody reads it.

    The class of such a module also derives from the class that the module had, and `state_dict` is what it was.
    Passes of other types than float32, under autocast or for pictures without a batch, go the ordinary way. For those
    under autocast a weight of its type may be kept, which autocast would otherwise make in each pass.
    """

    _packed: Packed
    _several: Packed | Ordinary
    _rounded: Tensor | None
    _order: torch.memory_format
    _plain: type[nn.Conv2d]
    _reading = False

    def forward(self, input: Tensor) -> Tensor:
        kept = self._parameters["weight"]
        if (
            torch._C._get_tracing_state() is None
            and input.dtype is torch.float32
            and input.ndim == 4
            and len(input)
            and kept is self._packed.weight
            and input.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and _unpack_dual(input).tangent is None  # the operators would drop a forward derivative
            and not torch._C._functorch.is_functorch_wrapped_tensor(input)  # torch.func knows no operator of these
        ):
            return (self._packed if len(input) == 1 else self._several)(input, self.bias)
        self._reading = True
        try:
            return super().forward(input)
        finally:
            self._reading = False

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = _dense(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedLayer:
        # Nothing can write into a packed weight, and torch cannot copy one.
        memo.update({id(weight): weight for weight in (self._packed.weight, self._rounded)})
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        copy.__dict__.update(deepcopy(self.__dict__, memo))
        return copy

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        """A file holds the ordinary convolution, which any process can read."""
        state = {**self.__dict__, "_parameters": {**self._parameters, "weight": _dense(self)}}
        for name in ("_packed", "_several", "_order", "_rounded", "_reading"):
            state.pop(name, None)
        return object.__new__, (self._plain,), state


def _dense(module: nn.Module) -> nn.Parameter:
    """The weight of a packed convolution in the order of memory that its network has."""
    weight = module._parameters["weight"]
    assert weight is not None
    if weight.layout == torch.strided:  # somebody gave the module another weight
        return weight
    dense = weight.to_dense().contiguous(memory_format=cast(torch.memory_format, module._order))
    return nn.Parameter(dense, requires_grad=False)


def _weight(module: nn.Module) -> Tensor:
    """The weight as a pass or anybody else reads it.

    Others get a tensor that refuses to be changed in place: the change would be lost without a word.
    """
    layer = cast(PackedLayer, module)
    if not layer._reading:
        with torch.inference_mode():
            return _dense(module)
    own = layer._parameters["weight"] is layer._packed.weight  # nobody gave it another one
    if own and layer._rounded is not None and torch.is_autocast_enabled("cpu"):
        return layer._rounded
    return layer._several.weight if own and isinstance(layer._several, Ordinary) else _dense(module)


@cache
def _class_of(plain: Any) -> Any:
    """The class of packed convolutions that are also of the class `plain`."""
    bases = (PackedLayer,) if plain is nn.Conv2d else (PackedLayer, plain)
    return type(plain.__name__, bases, {"_plain": plain, "weight": property(_weight)})


class Packing:
    """A convolution whose weight is packed in the place of its own, and the way back.

    packed: the convolution of one picture, and that of several: oneDNN has a layout for each, and the other one takes
        up to 1.7 times as long. That of several may have the weight as it is.
    order: the order in memory that the weight should have when it is unpacked.
    rounded: the type of passes under autocast, whose weight is kept too; float32 where there are none.
    """

    def __init__(
        self,
        module: nn.Conv2d,
        packed: tuple[Packed, Packed | Ordinary],
        order: torch.memory_format,
        rounded: torch.dtype,
    ) -> None:
        self._module = module
        kept = None if rounded == torch.float32 else module.weight.detach().to(rounded)
        one, several = packed
        module._packed, module._several = cast(Any, one), cast(Any, several)
        module._order, module._rounded = cast(Any, order), cast(Any, kept)
        module._parameters["weight"] = cast(nn.Parameter, one.weight)
        module.__class__ = _class_of(cast(Any, type(module)))

    def undo(self) -> None:
        """Gives the convolution its weight and its class back."""
        module = self._module
        with torch.inference_mode(False):
            module._parameters["weight"] = _dense(module)
        module.__class__ = cast(PackedLayer, module)._plain
        for name in ("_packed", "_several", "_order", "_rounded", "_reading"):
            vars(module).pop(name, None)
