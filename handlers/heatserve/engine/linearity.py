"""Linearity: the trace that finds a network's nonlinear calls, and that refuses a network with one that has no rule.

It looks twice. The functions that the picture reaches are seen as they are called. The nodes of autograd's graph show
all others: a function of an extension, an operator, or a function with a backward pass of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .derivatives import SOFTENED, Calls, Collecting, Following, OtherCalls, Plan, Planned, planned_of, softened
from .kinds import kind_of
from .nonlinear import Call, Pool, derivatives, name_of
from .packed import PackedConvolution

#: The rows of the trace: a first axis of this length is taken for that of the pictures.
_ROWS = 3
#: The largest relative distance of the two gradients that must be equal.
_CLOSE = 1e-3
#: Functions that read a tensor's numbers into Python.
_READING = {
    "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__", "equal", "allclose",
    "is_nonzero", "__array__", "__complex__",
}  # fmt: skip
#: Functions that take a tensor's shape and type alone.
_SHAPING = {
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones",
    "new_empty", "new_full", "new_tensor",
}  # fmt: skip
#: Functions of their first operand alone: of the others they take the shape or the type.
_OF_THE_FIRST = {"to", "type_as", "expand_as", "view_as", "reshape_as"}
#: Nodes of autograd's graph of functions that are linear in all their operands together.
_LINEAR = {
    "AccumulateGrad", "AdaptiveAvgPool2D", "Add", "Alias", "AsStrided", "AvgPool2D", "Cat", "ChannelShuffle", "Clone",
    "Col2Im", "ConstantPadNd", "Copy", "Expand", "Flip", "Im2Col", "Mean", "MkldnnAdaptiveAvgPool2D",
    "NativeChannelShuffle", "Neg", "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad2D", "Repeat",
    "ReplicationPad2D", "ReshapeAlias", "Roll", "Rsub", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze",
    "Stack", "Sub", "Sum", "T", "ToCopy", "Transpose", "Unbind", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze",
    "UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleNearest2D", "View",
}  # fmt: skip
#: Nodes that are linear in the operand at this place, while no other one depends on the picture.
_LINEAR_IN = {
    "Convolution": 0, "CudnnBatchNorm": 0, "CudnnConvolution": 0, "Div": 0, "MiopenBatchNorm": 0,
    "MiopenConvolution": 0, "MkldnnConvolution": 0, "NativeBatchNorm": 0,
}  # fmt: skip
#: Nodes of products. No more than one of the operands at these places may depend on the picture.
_ONE_OF = {
    "Mul": (0, 1),
    "Mm": (0, 1),
    "Bmm": (0, 1),
    "Mv": (0, 1),
    "Addmm": (1, 2),
    "Addmv": (1, 2),
    "Baddbmm": (1, 2),
}


class _Refused(Exception):
    """A network with a call that has no rule; the message is the reason."""


class _Tracing(Calls):
    """A mode for the traced pass: it makes the plan, and its graph has the local derivatives of each row itself."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: list[Planned] = []
        #: Tensors that depend on the picture without a gradient. They are held, so that no other one gets their id.
        self._cut: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [*_tensors([args, kwargs or {}])]
        name = name_of(func)
        if any(id(one) in self._cut and not one.requires_grad for one in given):
            raise _Refused(f"a value that has no gradient, and depends on the picture, goes into {name}")
        reached = any(one.requires_grad for one in (given[:1] if name in _OF_THE_FIRST else given))
        if reached and name in _READING:
            raise _Refused(f"the network reads its own values ({name}), and may take another way for each picture")
        result = super().__torch_function__(func, types, args, kwargs)
        if reached and name not in _SHAPING:
            self._cut.update({id(one): one for one in _tensors(result) if not one.requires_grad})
        return result

    def meet(self, call: Call) -> Any:
        """The call's result, with its entry of the plan."""
        reached = sum(one.requires_grad for one in call.operands)
        others = [one for one in _tensors([call.args, call.kwargs]) if all(one is not own for own in call.operands)]
        if any(one.requires_grad for one in others):
            raise _Refused(f"an argument of {call.name} depends on the picture")
        if reached < len(call.operands):  # a product with a constant is linear
            self.plan.append(planned_of(call, None))
            return call.func(*call.args, **call.kwargs)
        pictures = 4 if call.kind == "pool" else 1
        alike = all(one.ndim == call.operands[0].ndim for one in call.operands)
        if not alike or any(one.ndim < pictures or one.shape[0] != _ROWS for one in call.operands):
            raise _Refused(f"{call.name} gets a tensor whose first axis is not that of the pictures")
        with torch.no_grad():
            pooled = Pool.of(call).pool(call.operands[0])[1] if call.kind == "pool" else None
            found = tuple(one.detach().clone() for one in derivatives(call, pooled))
        self.plan.append(planned_of(call, found))
        return softened(call, lambda like: tuple(one.to(like.dtype) for one in found))


def plan_or_reason(model: nn.Module, image: Tensor) -> Plan | str:
    """The plan of a network's local derivatives, or the sentence that says why there is none.

    image: (1, C, H, W).
    """
    way_out = "use smoothgrad, which suits any network"
    if any(kind_of(module) != "eager" for module in model.modules()):
        return f"a part of the network is compiled, scripted or exported, and hides its functions; {way_out}"
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return _traced(model, image)
    except (_Refused, OtherCalls) as error:
        return f"{error}; {way_out}"
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return f"the network does not run while its functions are watched ({type(error).__name__}); {way_out}"


def _traced(model: nn.Module, image: Tensor) -> Plan:
    steps = torch.linspace(0.8, 1.2, _ROWS, dtype=image.dtype, device=image.device).view(-1, 1, 1, 1)
    leaf = (image.detach() * steps).requires_grad_()
    with _Tracing() as tracing:
        scores = model(leaf.clone())
    if not scores.requires_grad:
        raise _Refused("the scores have no gradient in the picture")
    _refuse_nodes(scores)
    weights = torch.linspace(1, 2, scores.shape[1], dtype=scores.dtype, device=scores.device)
    # By the way of the requests: a pass without a graph, and the means of it, which give the network's own gradient.
    one = leaf[:1].detach().requires_grad_()
    with torch.inference_mode(), Collecting(tracing.plan, [0]) as collecting:
        model(one.detach().clone())
    with Following(tracing.plan, collecting.found[0], 1):
        scores = model(one.clone())
    _refuse_nodes(scores)
    _refuse_difference(_gradient(model(one.clone()), weights, one), _gradient(scores, weights, one))
    return tuple(tracing.plan)


def _gradient(scores: Tensor, weights: Tensor, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad((scores * weights).sum(), leaf)
    return found


def _refuse_difference(exact: Tensor, found: Tensor) -> None:
    if not float((found - exact).norm()) <= _CLOSE * float(exact.norm()):
        raise _Refused("the backward pass by local derivatives is not the network's own where there is no noise")


def _refuse_nodes(scores: Tensor) -> None:
    """Raises _Refused for a node of the scores' graph that is neither linear nor one of `softened`."""
    waiting, seen = [scores.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        places = [place for place, (following, _) in enumerate(node.next_functions) if following is not None]
        _refuse_node(node, places)
        waiting += [following for following, _ in node.next_functions]


def _refuse_node(node: Any, places: Sequence[int]) -> None:
    whole = str(node.name()).rpartition("::")[2]
    name = re.sub(r"Backwards?\d*$", "", whole)
    if whole in (SOFTENED, "torch::autograd::AccumulateGrad"):
        return
    if getattr(type(node), "_forward_cls", None) is PackedConvolution:
        return
    if name in _LINEAR or (name in _LINEAR_IN and places == [_LINEAR_IN[name]]):
        if "BatchNorm" in name and getattr(node, "_saved_training", True):
            raise _Refused("a normalisation by the picture's own mean and variance has no rule")
        return
    if name in _ONE_OF and sum(place in _ONE_OF[name] for place in places) < 2:
        return
    if name in _ONE_OF or name in _LINEAR_IN:
        raise _Refused(f"{name} of two values that both depend on the picture has no rule")
    raise _Refused(f"{name} has no rule")


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors([*values.values()])
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
