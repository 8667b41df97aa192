"""Local derivatives of a network: the modes that add them up in a forward pass, and that go back by their means.

A plan says which calls of a pass these are. Each pass must make the calls of the plan, in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .counts import BYTE, count, count_type, quick
from .errors import UnsuitableModel
from .nonlinear import Call, Pool, call_of, derivatives, is_count


class OtherCalls(UnsuitableModel):
    """A pass whose calls are not those of the plan: the network's way depends on the picture."""


@dataclass(frozen=True)
class Planned:
    """One call of a plan.

    kind, name: as of a `Call`.
    shapes: of one row of what `derivatives` gives; None for a call that the picture does not reach as the rule's own.
    count: as `is_count`.
    wide: whether they are numbers of 64 bits.
    """

    kind: str
    name: str
    shapes: tuple[torch.Size, ...] | None
    count: bool
    wide: bool = False

    def bytes(self, samples: int) -> int:
        """The bytes that the sums of one picture take."""
        size = (1 if samples <= BYTE else 4) if self.count else 8 if self.wide else 4
        return size * sum(shape.numel() for shape in self.shapes or ())


Plan = Sequence[Planned]
#: The sums of one picture, for each call of the plan.
Sums = list[tuple[Tensor, ...]]


class Calls(TorchFunctionMode):
    """A mode for one forward pass that hands each call which has a rule to `meet`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        call = call_of(func, args, kwargs or {})
        return func(*args, **(kwargs or {})) if call is None else self.meet(call)

    def meet(self, call: Call) -> Any:
        """The call's result."""
        raise NotImplementedError


class Planful(Calls):
    """A mode that follows a plan, and raises OtherCalls where the pass leaves it."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self.number = 0

    def expected(self, call: Call) -> Planned:
        """The next call of the plan, which this one must be."""
        planned = self._plan[self.number] if self.number < len(self._plan) else None
        self.number += 1
        if planned is None or (planned.kind, planned.name) != (call.kind, call.name):
            raise OtherCalls(_SENTENCE)
        return planned

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        super().__exit__(kind, value, trace)  # type: ignore[no-untyped-call]
        if kind is None and self.number != len(self._plan):
            raise OtherCalls(_SENTENCE)


_SENTENCE = (
    "the network calls other functions for this picture than for the one that it was loaded with, so that its local "
    "derivatives cannot be averaged; use smoothgrad"
)


class Collecting(Planful):
    """A mode for one forward pass without a graph, which adds up the local derivatives of its rows.

    owners: for each row the key of the sums that it belongs to; None for a row that belongs to none.
    found: the sums by their key, once the pass has ended.
    """

    def __init__(self, plan: Plan, owners: Sequence[int | None]) -> None:
        super().__init__(plan)
        self._rows: dict[int, list[int]] = {}
        for row, owner in enumerate(owners):
            if owner is not None:
                self._rows.setdefault(owner, []).append(row)
        self._count = len(owners)
        self.found: dict[int, Sums] = {owner: [] for owner in self._rows}

    def meet(self, call: Call) -> Any:
        """The call's result; its derivatives are added up before a function in place changes its operand."""
        planned = self.expected(call)
        if planned.shapes is None:
            for sums in self.found.values():
                sums.append(())
            return call.func(*call.args, **call.kwargs)
        if call.kind == "pool":
            maxima, indices = Pool.of(call).pool(call.operands[0])
            self._add(planned, derivatives(call, indices))
            return (maxima, indices) if call.name.endswith("indices") else maxima
        if quick(call):
            self._check(planned, call.operands)
            for owner, rows in self._rows.items():
                self.found[owner].append((count(call, rows),))
        else:
            self._add(planned, derivatives(call))
        return call.func(*call.args, **call.kwargs)

    def _check(self, planned: Planned, found: tuple[Tensor, ...]) -> None:
        if tuple(one.shape for one in found) != tuple((self._count, *shape) for shape in planned.shapes or ()):
            raise OtherCalls(_SENTENCE)

    def _add(self, planned: Planned, found: tuple[Tensor, ...]) -> None:
        self._check(planned, found)
        for owner, rows in self._rows.items():
            self.found[owner].append(tuple(_sum(one, rows) for one in found))


def _sum(of: Tensor, rows: Sequence[int]) -> Tensor:
    """The sum of some rows: counts in one byte where they fit, else in four; numbers in 32 bits at least."""
    if of.dtype != torch.bool:
        kind = torch.float64 if of.dtype == torch.float64 else torch.float32
    else:
        of, kind = of.view(torch.uint8), count_type(len(rows))
    if of.is_cuda:
        return of[rows].sum(0, dtype=kind)
    # On a CPU one row after the other stays in the caches. The copy outlives a change in place.
    total = of[rows[0]].to(kind, copy=True)
    for row in rows[1:]:
        total += of[row]
    return total


def added(total: Sums | None, more: Sums, samples: int) -> Sums:
    """The sums of both. samples: the number that they will be of in the end."""
    with torch.inference_mode():
        if total is None:
            wide = samples > BYTE
            return [tuple(one.int() if wide and one.dtype == torch.uint8 else one for one in call) for call in more]
        for one, other in zip(total, more):
            for own, further in zip(one, other):
                own.add_(further)
        return total


class Following(Planful):
    """A mode for a forward pass of one picture, whose backward passes multiply by mean derivatives.

    sums: of the derivatives, over `samples` passes.
    """

    def __init__(self, plan: Plan, sums: Sums, samples: int) -> None:
        super().__init__(plan)
        self._sums, self._samples = sums, samples

    def meet(self, call: Call) -> Any:
        """The call's result, whose backward pass is the one by the means."""
        sums = self._sums[self.number] if self.number < len(self._sums) else ()
        planned = self.expected(call)
        if planned.shapes is None:
            return call.func(*call.args, **call.kwargs)
        return softened(call, lambda like: tuple(self._mean(one, like)[None] for one in sums))

    def _mean(self, total: Tensor, like: Tensor) -> Tensor:
        """The mean of a sum, in the type of `like`. The sum itself may be too large for float16."""
        return (total.to(torch.promote_types(like.dtype, torch.float32)) / self._samples).to(like.dtype)


class _Softened(torch.autograd.Function):
    """A function with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, value: Callable[[], Tensor], back: Callable[[Tensor], Any], *operands: Tensor) -> Tensor:
        """The value. back: from the gradient in the value to the gradients in the operands."""
        ctx.back = back
        return value()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The gradients in the operands."""
        return (None, None, *ctx.back(gradients[0]))


#: The name of its node in a graph.
SOFTENED = "_SoftenedBackward"


def softened(call: Call, factors: Callable[[Tensor], tuple[Tensor, ...]]) -> Any:
    """The call's result, whose backward pass multiplies by factors in place of the local derivatives.

    factors: as `derivatives` gives them, in the precision of a gradient that is given to it.
    """
    first = call.operands[0]
    given = first.detach().clone()
    rest = tuple(one.detach() for one in call.operands[1:])
    shapes = [one.shape for one in call.operands]
    if call.kind == "pool":
        pool = Pool.of(call)
        with torch.no_grad():
            maxima, indices = pool.pool(given)
        value: Tensor = _Softened.apply(
            lambda: maxima, lambda gradient: (pool.spread(gradient, factors(gradient)[0]),), first
        )
        return (value, indices) if call.name.endswith("indices") else value
    version = given._version
    with torch.no_grad():
        result = call.of(given, *rest)

    def back(gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple((gradient * factor).sum_to_size(shape) for factor, shape in zip(factors(gradient), shapes))

    value = _Softened.apply(lambda: result, back, *call.operands)
    # A function that works in place has changed its copy here; the network's own tensor follows.
    return first.copy_(value) if given._version != version else value


def planned_of(call: Call, found: tuple[Tensor, ...] | None) -> Planned:
    """The call as a plan has it. found: its derivatives; None where its rule does not apply."""
    shapes = None if found is None else tuple(one.shape[1:] for one in found)
    wide = found is not None and any(one.dtype == torch.float64 for one in found)
    return Planned(call.kind, call.name, shapes, is_count(call), wide)
