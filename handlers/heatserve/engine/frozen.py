"""The freezing of a model: evaluation mode and parameters without gradients, and the way back."""

from __future__ import annotations

from contextlib import suppress
from weakref import WeakKeyDictionary

from torch import nn

#: The models that are frozen now. A model that several explainers share is given back by the last of them.
_FROZEN: WeakKeyDictionary[nn.Module, Frozen] = WeakKeyDictionary()


class Frozen:
    """The modes of a model's modules and the flags of its parameters, as they were, by name.

    Names also fit after a fold, which replaces modules and parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        self.users = 0
        self._training = {
            name: module.training for name, module in model.named_modules() if hasattr(module, "training")
        }
        self._requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    def undo(self, model: nn.Module) -> None:
        """Gives the model its modes and flags back."""
        for name, module in model.named_modules():
            if name in self._training:
                module.training = self._training[name]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, parameter.requires_grad))


def freeze(model: nn.Module) -> None:
    """Puts a model into evaluation mode, and lets no parameter require a gradient."""
    if model not in _FROZEN:
        _FROZEN[model] = Frozen(model)
    _FROZEN[model].users += 1
    # The mode of a network of torch.export, and of a frozen one of TorchScript, was settled when it was made.
    with suppress(NotImplementedError, AttributeError):
        model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def thaw(model: nn.Module) -> None:
    """Gives a model back as it was before `freeze`, once it was called as often."""
    frozen = _FROZEN[model]
    frozen.users -= 1
    if not frozen.users:
        del _FROZEN[model]
        frozen.undo(model)
