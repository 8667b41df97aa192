"""Padding: a convolution takes over the zero padding that a child module of it does.

Ports of TensorFlow's networks pad in such a child. Without it one copy of the activation and of its gradient is saved.
"""

from __future__ import annotations

from typing import Optional, cast

from torch import nn


def padded_by_a_child(model: nn.Module) -> list[tuple[nn.Conv2d, str]]:
    """The convolutions without padding whose one child pads opposite sides alike, each with the child's name."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.padding == (0, 0) and module.padding_mode == "zeros":
            names = [name for name, child in module.named_children() if _symmetric(child) is not None]
            if len(names) == 1:
                found.append((module, names[0]))
    return found


def _symmetric(module: nn.Module) -> Optional[tuple[int, int]]:
    """The rows and columns that a module adds on each side; None for any other module."""
    if not isinstance(module, nn.ZeroPad2d):
        return None
    left, right, top, bottom = module.padding
    return (top, left) if (left, top) == (right, bottom) else None


class Padding:
    """A padding that a convolution does in place of its child, and the way back.

    convolution: the parent, which does not pad.
    child: the name of the child that pads.
    """

    def __init__(self, convolution: nn.Conv2d, child: str) -> None:
        self._convolution, self._name, self._child = convolution, child, convolution.get_submodule(child)
        convolution.padding = cast("tuple[int, int]", _symmetric(self._child))
        setattr(convolution, child, nn.Identity().eval())

    def undo(self) -> None:
        """Gives the padding back to the child."""
        self._convolution.padding = (0, 0)
        setattr(self._convolution, self._name, self._child)
