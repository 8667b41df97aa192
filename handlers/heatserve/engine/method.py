"""A method: the row of the registry that describes it, and the signals that its function may get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from .sampling import Draws, Noise


@dataclass(frozen=True)
class LayerSignal:
    """The signal of an inner layer for N rows.

    activations: (N, K, h, w).
    gradients: d(score)/d(activation), (N, K, h, w).
    class_weights: (N, K), the linear layer's weights of each row's score; None where the network does not end in global
        average pooling of this layer and one linear layer.
    """

    activations: Tensor
    gradients: Tensor
    class_weights: Tensor | None


@dataclass(frozen=True)
class InputSignal:
    """The signal of the input for N rows.

    inputs: (N, C, H, W).
    gradients: d(score)/d(input), (N, C, H, W).
    """

    inputs: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class ScoreSignal:
    """The signal of the scores for N rows, which takes no backward pass.

    logits: (N, classes).
    targets: the explained class of each row, (N).
    scores: the explained score, (N): the target's logit, less the contrast's where there is one.
    """

    logits: Tensor
    targets: Tensor
    scores: Tensor


@dataclass(frozen=True)
class AttentionSignal:
    """The signal of a transformer's attention for N rows.

    attentions: of each block, first to last, (N, heads, T, T); row i has the weights of the tokens that i is made of.
    gradients: of the explained score in each of them, or of each block's own score; empty without a backward pass.
    prefix: the number of tokens before the places' tokens.
    grid: (h, w) of the places' tokens, row by row.
    readers: the tokens of the last block that the scores are made of.
    """

    attentions: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    prefix: int
    grid: tuple[int, int]
    readers: tuple[int, ...]

    def read(self, relevance: Tensor) -> Tensor:
        """The mean of the readers' rows, (N, T), of a relevance (N, T, T) of each token for each."""
        return relevance[:, list(self.readers)].mean(1)

    def maps(self, tokens: Tensor) -> Tensor:
        """The maps (N, h, w) of one value for each token, (N, T)."""
        return tokens[:, self.prefix :].reshape(-1, *self.grid)


@dataclass(frozen=True)
class ModelSignal:
    """The signal of the bridge to Captum for N rows: the model itself, which it may ask as often as it needs to.

    model: gives (n, classes) scores for images (n, C, H, W).
    inputs: (N, C, H, W).
    targets: the explained class of each row, (N).
    contrasts: the classes whose mean score is subtracted, (N, m); -1 for none.
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    contrasts: Tensor


@dataclass(frozen=True)
class Method:
    """One row of the registry. How to write one: docs/write-a-method.md.

    name: lower case letters, digits and underscores. Names of the bridge to Captum begin with "captum:".
    summary: one line for tables.
    source: the authors and the year of the paper.
    signal: "layer", "input", "attention" or "score": which signal `attribute` gets. The bridge to Captum has
        "model".
    attribute: from the signal of N rows to their N attributions.
    reduce: from one attribution to a map, (H, W) or (h, w).
    draws: the class of the draws that the network gets in place of the image. None means the image itself, and noisy
        copies of it where a query asks for more than one sample.
    statistic: of the draws' attributions: "mean", "mean_square" or "variance". Of scores it may also be "covariance"
        with the draws' masks (`sampling.Masked`), or "combined" by the draws themselves (`sampling.Series`). Of noisy
        copies it may also be "derivatives": the mean of each local derivative (`engine.smoothdiff`).
    prepare: from the LayerSignal of the image itself to what the draws depend on; None for draws that need none.
    samples: the default number of draws.
    min_samples: the smallest number of draws.
    display: the value that a picture is scaled by: "maximum", or "percentile" (the 99th).
    needs_linear_head: whether the method needs global average pooling and one linear layer.
    needs_backward: whether the method reads a gradient; False where activations, or attention, are enough.
    layerwise: whether the gradients of a method of attention are those of each block's own score, not of the network's.
    signed: whether the map's negative part has a meaning of its own, which a picture shows in a second colour.
    rule: of the backward pass at ReLUs: "" for the ordinary one, or "guided".
    passes: the forward and backward passes that an attribution of the model takes, an upper bound.
    factors: the names of methods whose attributions `attribute` gets in place of a signal; each has a first axis of N.
    definition: the formula in one line.
    reference: the independent implementation that the tests compare with.
    caveat: one sentence that a reader of the map must know; empty for none.
    approximates: the name of the method that this one is a biased approximation of; empty for none.
    """

    name: str
    summary: str
    source: str
    signal: str
    attribute: Callable[..., Tensor]
    reduce: Callable[[Tensor], Tensor]
    draws: type[Draws] | None = None
    statistic: str = "mean"
    prepare: Callable[..., Tensor] | None = None
    samples: int = 1
    min_samples: int = 1
    display: str = "percentile"
    needs_linear_head: bool = False
    needs_backward: bool = True
    layerwise: bool = False
    signed: bool = False
    rule: str = ""
    passes: int = 1
    factors: tuple[str, ...] = ()
    definition: str = ""
    reference: str = ""
    caveat: str = ""
    approximates: str = ""

    @property
    def of_layer(self) -> bool:
        """Whether the map comes from a layer of the network."""
        return self.signal == "layer" or self.prepare is not None

    @property
    def drawn(self) -> type[Draws]:
        """The class of the draws where samples are taken."""
        return self.draws or Noise

    @property
    def takes_blocks(self) -> bool:
        """Whether samples may be averaged over blocks of pixels: random ones of the input's pixels, for a mean.

        A variance is no mean: that of a block's mean is not the mean of its pixels' variances. A fact of references is
        about the sum over all pixels.
        """
        means = self.signal == "input" and self.statistic in ("mean", "mean_square")
        return means and self.drawn.random and not getattr(self.drawn, "references", 0)

    def check_samples(self, samples: int) -> None:
        """Raises ValueError for fewer samples than the method's statistic needs."""
        if samples < self.min_samples:
            raise ValueError(f"samples must be at least {self.min_samples} for {self.name}")
