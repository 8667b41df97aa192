"""The kinds of models: networks of Python modules, and networks that were compiled, scripted or exported.

A network that is not eager is sealed: hooks on its inner modules do not see its forward pass.
"""

from __future__ import annotations

from typing import Any

from torch import jit, nn

from .errors import UnsuitableModel

#: Eager modules, FX's graph modules among them; modules of torch.compile; of TorchScript; of torch.export.
KINDS = ("eager", "compiled", "scripted", "exported")
_NAMES = {"compiled": "torch.compile", "scripted": "TorchScript", "exported": "torch.export"}
#: Nodes of a TorchScript graph that pass numbers on.
_PASSING = {"aten::" + name for name in ("view", "reshape", "squeeze", "unsqueeze", "flatten", "contiguous", "to")}
_SQUASHING = {"aten::sigmoid": "sigmoid", "aten::softmax": "softmax", "aten::log_softmax": "log-softmax"}


def kind_of(model: nn.Module) -> str:
    """The kind of a model by its own module, a name in KINDS; modules inside it may be of another kind."""
    if isinstance(model, jit.ScriptModule):
        return "scripted"
    if hasattr(model, "_orig_mod") or compiled_in_place(model):
        return "compiled"
    if any(kind.__module__ == "torch.export._unlift" for kind in type(model).__mro__):
        return "exported"
    return "eager"


def compiled_in_place(model: nn.Module) -> bool:
    """Whether `model.compile()` was called, which compiles the module's hooks as well."""
    return getattr(model, "_compiled_call_impl", None) is not None


def watchable(model: nn.Module) -> bool:
    """Whether the functions that a model's forward calls can be seen without disturbing a compiler."""
    return kind_of(model) != "scripted" and all(kind_of(module) != "compiled" for module in model.modules())


def sealed(model: nn.Module) -> str:
    """The sentence with which layers of a sealed network are refused; empty for an eager one."""
    kind = kind_of(model)
    if kind == "eager":
        return ""
    return (
        f"the network comes from {_NAMES[kind]}, and no layer inside it can be recorded; use a method that needs none, "
        f"such as gradient or smoothgrad, or give the eager network that it was made from{_original(model)}"
    )


def refuse_sealed_layers(model: nn.Module, layers: tuple[str, ...]) -> None:
    """Raises UnsuitableModel for a layer inside a module that is sealed."""
    for layer in layers:
        module, place = model, layer.partition(":")[0].split(".")
        for part in place:
            if sealed(module):
                raise UnsuitableModel(f"layer {layer!r}: {sealed(module)}")
            module = getattr(module, part, module)


def last_function(model: nn.Module) -> str:
    """The name of the sigmoid or softmax that a TorchScript network ends in; empty for another end."""
    graph: Any = getattr(model, "inlined_graph", None)  # it is held, as its nodes do not outlive it
    if graph is None:
        return ""
    node = next(graph.outputs()).node()
    while node.kind() in _PASSING:
        node = next(node.inputs()).node()
    return _SQUASHING.get(node.kind(), "")


def _original(model: nn.Module) -> str:
    return " (`model._orig_mod`)" if hasattr(model, "_orig_mod") else ""
