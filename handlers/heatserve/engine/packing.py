"""Packing: convolutions of a frozen network take packed weights in place of their own, tried, proved and undone.

Convolutions in one group, and those with a group for each channel, gain time. Others are left as they are: the gradient
of a few channels for each group was slower when packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from copy import deepcopy
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .packed import Geometry, Packed, prepare
from .structure import same
from .taps import Layer

_unpack_dual: Any = forward_ad.unpack_dual


class _PackedConvolution(nn.Conv2d):
    """A convolution whose one weight is packed. Its `weight` is computed when somebody reads it.

    The class of such a module also derives from the class that the module had, and `state_dict` is what it was.
    Passes of other types than float32, under autocast or for pictures without a batch, go the ordinary way. For those
    under autocast a weight of its type may be kept, which autocast would otherwise make in each pass.
    """

    _packed: Packed
    _several: Packed
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

    def __deepcopy__(self, memo: dict[int, Any]) -> _PackedConvolution:
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
    rounded = cast("Tensor | None", module._rounded)
    if module._reading and rounded is not None and torch.is_autocast_enabled("cpu"):
        return rounded
    if module._reading:
        return _dense(module)
    with torch.inference_mode():
        return _dense(module)


@cache
def _class_of(plain: Any) -> Any:
    """The class of packed convolutions that are also of the class `plain`."""
    bases = (_PackedConvolution,) if plain is nn.Conv2d else (_PackedConvolution, plain)
    return type(plain.__name__, bases, {"_plain": plain, "weight": property(_weight)})


class Packing:
    """A convolution whose weight is packed in the place of its own, and the way back.

    packed: the convolution of one picture, and that of several: oneDNN has a layout for each, and the other one takes
        up to 1.7 times as long.
    order: the order in memory that the weight should have when it is unpacked.
    rounded: the type of passes under autocast, whose weight is kept too; float32 where there are none.
    """

    def __init__(
        self, module: nn.Conv2d, packed: tuple[Packed, Packed], order: torch.memory_format, rounded: torch.dtype
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
        module.__class__ = cast(_PackedConvolution, module)._plain
        for name in ("_packed", "_several", "_order", "_rounded", "_reading"):
            vars(module).pop(name, None)


def packings(
    model: nn.Module, example: Tensor, layers: Collection[str], order: torch.memory_format, rounded: torch.dtype
) -> list[Packing]:
    """The packings of all convolutions of a frozen model that compute the same packed, which are made.

    Each is compared in one forward pass of the model, on the inputs that it has there and on smaller ones: its output
    and its gradient to the input.

    example: (N, C, H, W) in float32 on a CPU.
    layers: the names of the tapped layers.
    order, rounded: as of a Packing.
    """
    found: dict[nn.Conv2d, tuple[Packed, Packed]] = {}
    tried: set[nn.Module] = set()

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if module not in tried and isinstance(module, nn.Conv2d):
            tried.add(module)
            packed = _proved(module, inputs, output)
            if packed is not None:
                found[module] = packed

    handles = [module.register_forward_hook(hook) for module in _candidates(model, layers)]
    try:
        with torch.no_grad():
            model(example.clone(memory_format=torch.preserve_format))
    finally:
        for handle in handles:
            handle.remove()
    return [Packing(module, packed, order, rounded) for module, packed in found.items()]


def _candidates(model: nn.Module, layers: Collection[str]) -> list[nn.Conv2d]:
    """The convolutions whose weight can be replaced, and of whose children none is tapped."""
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    inside = {layer.module.rpartition(".")[0] for layer in map(Layer.parse, layers)}
    found = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if (
            isinstance(module, nn.Conv2d)
            and not isinstance(module, _PackedConvolution)
            and "forward" not in module.__dict__
            and not module._forward_pre_hooks  # it may make the weight anew before each pass
            and name not in inside
            and weight is not None
            and (weight.dtype, weight.layout, weight.device.type) == (torch.float32, torch.strided, "cpu")
            and uses[id(weight)] == 1
            and module.groups in (1, module.in_channels)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            found.append(module)
    return found


def _proved(module: nn.Conv2d, inputs: tuple[Any, ...], output: Any) -> tuple[Packed, Packed] | None:
    """The packed convolutions, of one picture and of several, that do what a module did; None where there is none."""
    if len(inputs) != 1 or not isinstance(output, Tensor) or output.ndim != 4:
        return None
    x = inputs[0].detach()
    geometry = Geometry(_pair(module.stride), _pair(module.padding), _pair(module.dilation), module.groups)
    corners, proved = _corners(x, module), []
    for count in (1, 2):
        packed = prepare(module.weight, geometry, (count, *x.shape[1:]), (count, *output.shape[1:]))
        if packed is None or not torch.equal(packed.weight.to_dense(), module.weight):
            return None
        if not all(_agrees(module, packed, torch.cat([corner, -corner])[:count]) for corner in corners):
            return None
        proved.append(packed)
    one, several = proved
    return one, several


def _pair(values: Any) -> tuple[int, int]:
    """Two numbers that a subclass of Conv2d may keep in a list."""
    rows, columns = values
    return int(rows), int(columns)


def _corners(x: Tensor, module: nn.Conv2d) -> list[Tensor]:
    """Corners of one input, as small as a convolution takes without padding and some places larger.

    A class with a forward of its own may pad by the size of its input, and be an ordinary convolution at some sizes,
    but not at sizes that follow each other. Every other size that is tried costs memory for oneDNN's kernels.
    """
    count = 1 if type(module).forward is nn.Conv2d.forward else max(2, *_pair(module.stride))
    least = [int(d) * (int(k) - 1) + 1 for d, k in zip(module.dilation, module.kernel_size)]
    return [x[:1, :, : least[0] + more, : least[1] + more] for more in range(4, 4 + count)]


def _agrees(module: nn.Conv2d, packed: Packed, x: Tensor) -> bool:
    """Whether a module and its packed form have the same output, and the same gradient to their input."""
    found = []
    try:
        with torch.enable_grad():
            for convolve in (type(module).forward.__get__(module), lambda y: packed(y, module.bias)):
                leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
                output = convolve(leaf)
                weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape).cos().to(output)
                found.append((output.detach(), *torch.autograd.grad(output, leaf, weights)))
    except Exception:  # a private operator may raise any error
        return False
    return all(same(theirs, ours) and same(ours, theirs) for theirs, ours in zip(*found))
