"""The attention that one forward pass leaves, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import Attentions
from .choice import Source
from .method import AttentionSignal
from .transformer import Transformer
from .wave import Wave


@dataclass(frozen=True)
class RecordedAttention:
    """The attention of one pass.

    transformer: the transformer that it was recorded of.
    attentions: the recorder, which has the matrices after the pass.
    tokens: the tokens behind each block, (N, T, K); empty unless a method needs each block's own score.
    """

    transformer: Transformer
    attentions: Attentions
    tokens: list[Tensor]

    @property
    def matrices(self) -> tuple[Tensor, ...]:
        """The attention of each block, (N, heads, T, T)."""
        return self.attentions.matrices

    def own_gradients(self, scores: Tensor, logits: Tensor, image: Tensor, scale: float) -> tuple[Tensor, ...]:
        """The gradient of each block's own score in its attention: `ds^l / dA^l`, (N, heads, T, T).

        A block's own score is the explained score of the logits that the network's last norm and classifier make of the
        mean of all tokens behind the block. The mean stands in the place of every token, so that it is what any pooling
        gives. Every block is passed once, from its output back to its attention.

        scores: the explained score of each row, which is linear in `logits`; both in the pass's graph.
        image: (1, C, H, W).
        scale: the score is multiplied by it.
        """
        blocks = self.transformer.blocks
        [weights] = torch.autograd.grad(scores.sum() * scale, logits, retain_graph=True)
        count = len(self.tokens)
        leaf = torch.cat([tokens.detach() for tokens in self.tokens]).requires_grad_()
        own = blocks.tail(image, leaf.mean(1, keepdim=True).expand_as(leaf))
        [gradient] = torch.autograd.grad(own, leaf, weights.repeat(count, 1).to(own.dtype))
        return tuple(
            torch.autograd.grad(tokens, matrix, of_tokens, retain_graph=True)[0]
            for tokens, matrix, of_tokens in zip(self.tokens, self.matrices, gradient.chunk(count))
        )

    def signal(self, wave: Wave, gradients: tuple[Tensor, ...], full: Callable[[Tensor], Tensor]) -> AttentionSignal:
        """The signal of a wave's rows; `full` gives values the precision that signals have."""
        matrices = tuple(full(wave.of(matrix.detach())) for matrix in self.matrices)
        of_rows = tuple(full(wave.of(gradient)) for gradient in gradients)
        of = self.transformer
        return AttentionSignal(matrices, of_rows, of.prefix, of.grid, of.readers)


@contextmanager
def recording_attention(
    transformer: Transformer | str, sources: set[Source], graph: bool
) -> Iterator[RecordedAttention | None]:
    """A context for one forward pass that records attention where one of its sources needs it.

    graph: whether the pass records a graph.
    """
    wanted = {source.gradients for source in sources if source.signal == "attention"}
    if isinstance(transformer, str) or not wanted:
        yield None
        return
    attentions = Attentions(graph)
    if "blocks" in wanted:
        with transformer.blocks.recording() as tokens, attentions:
            yield RecordedAttention(transformer, attentions, tokens)
    else:
        with attentions:
            yield RecordedAttention(transformer, attentions, [])
