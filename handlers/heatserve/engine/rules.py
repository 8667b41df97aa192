"""Rules: changes of the backward pass at a network's ReLUs.

The forward pass only marks its ReLUs. Each backward pass then says which rule it follows, so that ordinary gradients
and those of a rule come from one forward pass. The marks live in the pass's graph, and end with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .kinds import kind_of

#: "" is the ordinary backward pass. "guided" lets no negative gradient through a ReLU (Springenberg et al. 2015).
RULES = ("", "guided")
#: ReLU6 is the minimum of a ReLU and 6, so the rule of its ReLU is its own.
_RECTIFIERS = {
    functional.relu,
    functional.relu6,
    torch.relu,
    torch.relu_,
    torch.Tensor.relu,
    torch.Tensor.relu_,
}
_CLAMPS = {functional.hardtanh, functional.hardtanh_}
#: Functions with a smallest value, which is a ReLU where that is 0.
_LOWEST = {
    torch.clamp,
    torch.clamp_,
    torch.clamp_min,
    torch.clamp_min_,
    torch.clip,
    torch.clip_,
    torch.Tensor.clamp,
    torch.Tensor.clamp_,
    torch.Tensor.clamp_min,
    torch.Tensor.clamp_min_,
    torch.Tensor.clip,
    torch.Tensor.clip_,
}
_THRESHOLDS = {functional.threshold, torch.threshold, torch.threshold_}


class Rules(TorchFunctionMode):
    """A mode for one forward pass, which marks the ReLUs that run in it.

    count: their number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._rule = ""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if _rectifies(func, args, kwargs):
            self.count += 1
            if result.requires_grad:
                result.register_hook(self._changed)
        return result

    def _changed(self, gradient: Tensor) -> Tensor | None:
        """The gradient in a ReLU's output that goes on; None for the ordinary one."""
        return gradient.clamp_min(0) if self._rule == "guided" else None

    @contextmanager
    def following(self, rule: str) -> Iterator[None]:
        """A context for backward passes of the marked forward pass that follow a rule."""
        self._rule = rule
        try:
            yield
        finally:
            self._rule = ""


def _rectifies(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is that of a ReLU, or of a ReLU with a largest value."""
    if func in _RECTIFIERS:
        return True
    if func in _CLAMPS:
        return bool(kwargs.get("min_val", args[1] if len(args) > 1 else -1.0) == 0)
    if func in _LOWEST:
        lowest = kwargs.get("min", args[1] if len(args) > 1 else None)
        return isinstance(lowest, (int, float)) and lowest == 0
    if func in _THRESHOLDS:
        named = (
            kwargs.get(name, args[place] if len(args) > place else None)
            for place, name in ((1, "threshold"), (2, "value"))
        )
        return all(value == 0 for value in named)
    return False


def refused_rules(model: nn.Module, image: Tensor) -> str:
    """The sentence that says why no rule can be followed in a model; empty where one can.

    image: (1, C, H, W).
    """
    way_out = "use gradient or integrated_gradients, which suit any network"
    if any(kind_of(module) != "eager" for module in model.modules()):
        return f"a part of the network is compiled, scripted or exported, and hides its ReLUs; {way_out}"
    with torch.no_grad(), Rules() as rules:
        model(image.clone())
    if rules.count:
        return ""
    return f"the network has no ReLU, which is the only activation whose backward pass would change; {way_out}"
