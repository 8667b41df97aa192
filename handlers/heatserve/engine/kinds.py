"""The kinds of models: networks of Python modules, and networks that a compiler took apart."""

from __future__ import annotations

from torch import jit, nn

#: Eager modules, FX's graph modules among them; modules of torch.compile; of TorchScript; of torch.export.
KINDS = ("eager", "compiled", "scripted", "exported")


def kind_of(model: nn.Module) -> str:
    """The kind of a model, a name in KINDS. A network is of the kind of a part that is not eager."""
    for module in model.modules():
        if isinstance(module, jit.ScriptModule):
            return "scripted"
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            return "compiled"
        if any(kind.__module__ == "torch.export._unlift" for kind in type(module).__mro__):
            return "exported"
    return "eager"


def watchable(model: nn.Module) -> bool:
    """Whether the functions that a model's forward calls can be seen."""
    return kind_of(model) in ("eager", "exported")
