"""Small transformers with random weights, whose tokens may stand in a wrong order on purpose."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

WIDTH, CLASSES, PATCH = 24, 7, 4


class Block(nn.Module):
    """A transformer's block: normalised attention and a normalised perceptron, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer for pictures of a grid of patches.

    prefix: the number of tokens that are learned, before the patches' tokens.
    pool: "token" reads the first token at the end, "places" the mean of the patches, "all" the mean of all tokens.
    order: what is done to the patches' tokens, (N, T, K), before any block.
    behind: whether the learned tokens stand behind the patches instead.
    sharpness: the factor of all weights; random ones let every token attend to all others alike.
    """

    def __init__(
        self,
        grid: tuple[int, int] = (4, 6),
        prefix: int = 1,
        pool: str = "token",
        order: Callable[[Tensor], Tensor] = lambda tokens: tokens,
        behind: bool = False,
        sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.learned = nn.Parameter(torch.randn(1, prefix, WIDTH))
        self.place = nn.Parameter(0.5 * torch.randn(1, prefix + grid[0] * grid[1], WIDTH))
        self.start = nn.Identity()
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)
        self.pool, self.order, self.behind, self.prefix = pool, order, behind, prefix
        for parameter in self.blocks.parameters():
            if parameter.ndim > 1:
                parameter.data *= sharpness

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.order(self.embed(images).flatten(2).transpose(1, 2))
        parts = [self.learned.expand(len(tokens), -1, -1), tokens]
        x = torch.cat(parts[::-1] if self.behind else parts, 1) + self.place
        x = self.norm(self.blocks(self.start(x)))
        if self.pool == "token":
            return self.head(x[:, 0])
        return self.head(x[:, self.prefix if self.pool == "places" else 0 :].mean(1))


def size_of(grid: tuple[int, int]) -> tuple[int, int]:
    """The pictures' (H, W) for a grid of patches."""
    return grid[0] * PATCH, grid[1] * PATCH
