"""The layout of an activation: which of its axes are places, and which position is which place."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from .errors import UnsuitableModel

_TOKENS = re.compile(r"tokens:(\d+):(\d+)x(\d+)")


@dataclass(frozen=True)
class Layout:
    """The layout of an activation, written `nchw`, `nhwc` or `tokens:PREFIX:HxW`.

    kind: "nchw" for (N, K, h, w), "nhwc" for (N, h, w, K), "tokens" for (N, prefix + h * w, K) row by row.
    prefix: the number of tokens before the places' tokens: class, distillation and register tokens.
    grid: (h, w) of tokens; None for the other kinds, which show their size.
    proved: whether changed pictures have shown it; False where an operator declared it.
    """

    kind: str
    prefix: int = 0
    grid: tuple[int, int] | None = None
    proved: bool = True

    @staticmethod
    def parse(text: str) -> Layout:
        """The layout that a text declares, which is not proved. Raises UnsuitableModel for a text that names none."""
        if text in ("nchw", "nhwc"):
            return Layout(text, proved=False)
        found = _TOKENS.fullmatch(text)
        prefix, rows, columns = (int(number) for number in found.groups()) if found else (0, 0, 0)
        if not rows or not columns:
            raise UnsuitableModel(f"layout {text!r}: it is nchw, nhwc or tokens:PREFIX:HxW, such as tokens:1:14x14")
        return Layout("tokens", prefix, (rows, columns), False)

    def __str__(self) -> str:
        if self.grid is None:
            return self.kind
        return f"{self.kind}:{self.prefix}:{self.grid[0]}x{self.grid[1]}"

    def maps(self, activation: Tensor) -> Tensor:
        """The maps (N, K, h, w) of an activation, or of a gradient in it, without the prefix.

        Raises ValueError for another shape than the layout's.
        """
        if self.grid is None:
            if activation.ndim != 4:
                raise ValueError(f"{self} has four axes, not {activation.ndim}")
            return activation if self.kind == "nchw" else activation.permute(0, 3, 1, 2)
        rows, columns = self.grid
        if activation.ndim != 3 or activation.shape[1] != self.prefix + rows * columns:
            raise ValueError(f"{self} has {self.prefix + rows * columns} tokens, not shape {tuple(activation.shape)}")
        tokens = activation[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)
