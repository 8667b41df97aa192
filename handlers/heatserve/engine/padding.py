"""Zero padding that a convolution does in a module of its own, as ports of TensorFlow's networks do, becomes the
convolution's: that saves a copy of the activation, and one of its gradient."""

from __future__ import annotations

from typing import Optional, cast

from torch import nn


def padded_by_a_child(model: nn.Module) -> list[tuple[nn.Conv2d, str]]:
    """Convolutions that do not pad but have a child which does, alike on opposite sides; with the child's name."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.padding == (0, 0) and module.padding_mode == "zeros":
            names = [name for name, child in module.named_children() if _symmetric(child) is not None]
            if len(names) == 1:
                found.append((module, names[0]))
    return found


def _symmetric(module: nn.Module) -> Optional[tuple[int, int]]:
    """Rows and columns on each side; None where it does anything else."""
    if not isinstance(module, nn.ZeroPad2d):
        return None
    left, right, top, bottom = module.padding
    return (top, left) if (left, top) == (right, bottom) else None


class Padding:
    """A child's padding done by its convolution, and the way back."""

    def __init__(self, convolution: nn.Conv2d, child: str) -> None:
        self._convolution, self._name, self._child = convolution, child, convolution.get_submodule(child)
        convolution.padding = cast("tuple[int, int]", _symmetric(self._child))
        setattr(convolution, child, nn.Identity().eval())

    def undo(self) -> None:
        self._convolution.padding = (0, 0)
        setattr(self._convolution, self._name, self._child)
