"""A query and its answer: a question about one image, and the attribution that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .method import Method
from .price import FORWARD, WITH_BACKWARD, closing
from .ranking import nearest
from .registry import METHODS
from .sampling import Sampling


@dataclass(frozen=True)
class Query:
    """A question about one image.

    method: a name in METHODS.
    target: a class index; None means the class that the image itself ranks at `rank`.
    rank: 0 is the predicted class.
    least: drops the query unless its class has a probability above this; None keeps every query.
    contrast: a class index, or None. The explained score is the pre-softmax `y_target`, less `y_contrast` if given.
    nearest: the number of classes, nearest in score to the target, whose mean score is subtracted; None for none.
    others: these classes, as the image's own scores rank them; empty until `at` has fixed them.
    layer: the name of a tapped layer, or several joined by "+", whose maps are fused; None for the default one.
    samples: the number of draws; None for the method's own number. More than 1 smooths a method that draws nothing of
        its own, by noisy copies.
    noise_level: the spread of noise, as a share of the image's range.
    seed: of everything that is random.
    standard_error: ends the samples as soon as the relative standard error of the attribution is at most this;
        `samples` is then the largest number.
    resolution: the side of the blocks, in pixels of the image, whose means are the answer; 1 for the pixels themselves.
        The error is that of the blocks' means. It belongs to random samples of a method of the input.
    prepares: whether the answer is not the map, but what the method's draws depend on.

    Raises ValueError for a question that no network can answer.
    """

    method: str = "gradcam"
    target: int | None = None
    rank: int = 0
    least: float | None = None
    contrast: int | None = None
    nearest: int | None = None
    others: tuple[int, ...] = ()
    layer: str | None = None
    samples: int | None = None
    noise_level: float = 0.15
    seed: int = 0
    standard_error: float | None = None
    resolution: int = 1
    prepares: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"there is no method {self.method!r}; there are: {', '.join(METHODS)}")
        if self.samples is None:
            object.__setattr__(self, "samples", self._row.samples)
        self._row.check_samples(self.count)
        if min(self.target or 0, self.contrast or 0, self.rank) < 0:
            raise ValueError("target, contrast and rank are class indices and ranks: they start at 0")
        if self.least is not None and not 0 <= self.least <= 1:
            raise ValueError("least is a probability: it goes from 0 to 1")
        if self.nearest is not None and (self.nearest < 1 or self.contrast is not None):
            raise ValueError("nearest must be at least 1, and excludes contrast")
        if self.standard_error is not None and not (self.standard_error > 0 and self.smoothed):
            raise ValueError("standard_error must be above 0, and belongs to a method with samples")
        if self.standard_error is not None and not self._row.drawn.random:
            raise ValueError(f"standard_error belongs to random samples, which {self.method} does not take")

        if self.resolution < 1:
            raise ValueError("resolution is the side of a block in pixels: it starts at 1")
        if self.resolution > 1 and not (self._row.takes_blocks and self.smoothed):
            able = ", ".join(name for name, row in METHODS.items() if row.takes_blocks)
            raise ValueError(f"resolution belongs to random samples, more than one, of: {able}")

    @property
    def _row(self) -> Method:
        return METHODS[self.method]

    @property
    def count(self) -> int:
        """The number of draws."""
        assert self.samples is not None
        return self.samples

    @property
    def smoothed(self) -> bool:
        """Whether the answer is a statistic over draws, which takes chunks; else one pass of the image answers it."""
        return not self.prepares and self._smoothed

    @property
    def _smoothed(self) -> bool:
        return self.count > 1 or self._row.statistic != "mean" or self._row.draws is not None

    @property
    def at_image(self) -> Query | None:
        """The query that the pass of the image itself answers: this one, or what its draws depend on, or none."""
        if not self.smoothed:
            return self
        return None if self._row.prepare is None else replace(self, prepares=True, standard_error=None)

    @property
    def score(self) -> tuple[int | None, ...]:
        """The fields that the explained score depends on: queries of one row that agree in them share a gradient."""
        return (self.target, 0 if self.target is not None else self.rank, self.nearest, *self.contrasts)

    @property
    def contrasts(self) -> tuple[int, ...]:
        """The classes whose mean score is subtracted, as far as they are known without the image's scores."""
        return self.others if self.contrast is None else (self.contrast,)

    @property
    def through_input(self) -> bool:
        """Whether the gradient passes the whole network, to the input or to the first block's attention."""
        rows = [METHODS[name] for name in self._row.factors] or [self._row]
        whole = ("input", "model")
        return any(row.signal in whole or (row.signal == "attention" and row.needs_backward) for row in rows)

    @property
    def sampling(self) -> Sampling:
        """The part of the query that draws may depend on."""
        return Sampling(self.count, self.noise_level, self.seed)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the fields that the query's draws depend on; empty where nothing is drawn."""
        return self._row.drawn.parameters if self.smoothed else ()

    def generator(self, device: torch.device) -> str | None:
        """The name of the generator of the query's random numbers on a device; None without any, or unknown."""
        name = getattr(self._row.drawn, "generator", None)
        return None if name is None or "seed" not in self.parameters else str(name(device))

    @property
    def references(self) -> int:
        """The number of images beside the draws that the answer takes a pass of."""
        return int(getattr(self._row.drawn, "references", 0)) if self.smoothed else 0

    @property
    def price(self) -> int:
        """The cost of one draw, in forward passes.

        It is an upper bound that holds for every network: where a linear head makes the gradient of a layer known, a
        draw of a method of that layer costs less. Factors share the forward pass, and each has a backward pass.
        """
        if self._row.factors:
            return FORWARD + (WITH_BACKWARD - FORWARD) * len(self._row.factors)
        if self._row.signal == "model":
            return FORWARD + WITH_BACKWARD * self._row.passes
        forward = self._row.signal == "score" or not self._row.needs_backward or self._row.statistic == "derivatives"
        return FORWARD if forward else WITH_BACKWARD

    @property
    def work(self) -> int:
        """The cost of the answer beyond the pass that predictions share, in forward passes."""
        draws = self.count + self.references
        return self.price * draws + self.ending if self.smoothed or self.through_input else 0

    @property
    def ending(self) -> int:
        """The cost of the passes behind the last draw, in forward passes."""
        return closing(self.count, self.standard_error is not None) if self._row.statistic == "derivatives" else 0

    def precision(self, of_archive: str) -> str:
        """The precision of the passes of draws: the archive's, but 32 bits for a method of the score.

        16 bits lose the differences of scores, which may be as small as their steps.
        """
        return self.own_precision or of_archive

    @property
    def own_precision(self) -> str | None:
        """The precision that the query's passes of draws have in every archive; None for the archive's."""
        return "float32" if self._row.signal == "score" else None

    def at(self, target: int, scores: Tensor | None = None) -> Query:
        """The same query once its class is known: with its target fixed, unless it was, and without `least`.

        scores: of the image, (classes). They fix the nearest classes too, which draws would rank otherwise.
        """
        target = target if self.target is None else self.target
        others = self.others
        if self.nearest is not None and scores is not None and not others:
            others = tuple(
                nearest(scores[None], torch.tensor([target], device=scores.device), self.nearest)[0].tolist()
            )
        if (self.target, self.least, self.others) == (target, None, others):
            return self
        return replace(self, target=target, least=None, others=others)


@dataclass(frozen=True)
class Attribution:
    """The answer to a query.

    query: with its target fixed to the class that was explained.
    values: float32 on the model's device; (C, H, W) from the input's gradient, (h, w) from a layer, (H, W) from masks.
        With a `resolution` they are one for each block: (C, ceil(H / resolution), ceil(W / resolution)).
    samples_used: the number of draws.
    standard_error: of each value, in the shape of `values`; None unless random draws were taken.
    relative_error: |standard error| / |values|, one number; None unless random draws were taken.
    reached: whether the relative error is as small as the query asked for.
    facts: numbers about the answer by their names, as "completeness_error".
    score: the explained score, one number on the model's device; None for a statistic of draws.
    """

    query: Query
    values: Tensor
    samples_used: int = 1
    standard_error: Tensor | None = None
    relative_error: Tensor | None = None
    reached: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)
    score: Tensor | None = None

    @property
    def map(self) -> Tensor:
        """The attribution reduced to a picture's shape, (H, W) or (h, w)."""
        return METHODS[self.query.method].reduce(self.values)
