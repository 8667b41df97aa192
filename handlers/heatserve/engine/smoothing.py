"""Smoothing: an explanation that is a statistic over draws, in progress, with its Monte-Carlo error.

Any method can be smoothed by noisy copies (Smilkov et al. 2017); a method may also bring draws of its own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Union, cast

import torch
from torch import Tensor

from .combined import Combined, Covariance
from .method import Method
from .query import Attribution, Query
from .registry import METHODS
from .sampling import Draws, Referred
from .statistic import Statistic

#: Fewer samples say too little about their own error to end by it.
FEWEST = 10
#: The factor by which the number of samples grows, at least, from one decision to the next.
GROWTH = 1.2


def next_decision(samples: int) -> int:
    """The smallest number of samples above `samples` at which it is decided whether they are enough: 10, 12, 15, 18 ...

    The list is the same for every request, so that the chunk does not change the number at which a request ends.
    """
    count = FEWEST
    while count <= samples:
        count = math.ceil(GROWTH * count)
    return count


def _statistic(method: Method, draws: Any, side: int) -> Union[Statistic, Covariance, Combined]:
    if method.statistic == "covariance":
        return Covariance(draws)
    return Combined(draws) if method.statistic == "combined" else Statistic(method.statistic, side)


class Smoothing:
    """A statistic over draws of one image, as far as they have been taken.

    image: (C, H, W).
    query: its target must be fixed, as the class that the image itself was found to be. Its `samples` become the number
        of all draws, where there are fewer.
    prepared: the answer to `query.at_image`, for a method whose draws depend on it.
    beside: an explanation that has the same image, method and sampling, and an equal `prepared`: its draws are used.
    """

    def __init__(
        self, image: Tensor, query: Query, prepared: Tensor | None = None, beside: Smoothing | None = None
    ) -> None:
        assert query.target is not None
        assert query.nearest is None or query.others, "at(target, scores) fixes the nearest classes"
        if query.resolution > min(image.shape[1:]):
            raise ValueError(f"resolution must be at most {min(image.shape[1:])}, the shorter side of the image")
        method = METHODS[query.method]
        self._method = method
        self._image, self.prepared, self.sampling = image, prepared, query.sampling
        self._draws: Draws = (
            beside._draws if beside else method.drawn.of(image, replace(query.sampling, prepared=prepared))
        )
        # By identity: a comparison of pictures would wait for the device. The picture is kept, so that its id is too.
        alone = id(self._draws) if prepared is not None else None
        self._images = (method.drawn, id(image), query.sampling, alone)
        self._statistic = _statistic(method, self._draws, query.resolution)
        most = getattr(self._draws, "count", query.count) if method.statistic == "combined" else query.count
        self.query = query if query.count <= most else replace(query, samples=most)
        self._scores: list[Tensor] = []
        self._ended = False
        self._zeros_are_zero = True

    @property
    def samples(self) -> int:
        """The number of samples taken so far."""
        return self._statistic.samples

    @property
    def left(self) -> int:
        """The number of samples still to take, and of references that go before them."""
        return 0 if self._ended else max(0, self.query.count - self.samples) + self._waiting

    @property
    def _waiting(self) -> int:
        """The number of references whose score is not known yet."""
        return self.query.references - len(self._scores)

    @property
    def next_images(self) -> Hashable:
        """Equal for explanations whose next draws are the same images: of the same picture, and as far on."""
        return (*self._images, self.samples, self._waiting)

    @property
    def presentable(self) -> bool:
        """Whether `estimate` has a value with an error, which takes two samples."""
        return not self.left or self.samples >= max(2, self._method.min_samples)

    def draw(self, count: int) -> Tensor:
        """The next draws, (count, C, H, W), behind the references that are left."""
        if not self._waiting:
            return self._draws.draw(self.samples, count)
        references = cast(Referred, self._draws).refer()[-self._waiting :][:count]
        rest = count - len(references)
        return torch.cat([references, self._draws.draw(self.samples, rest)]) if rest else references

    def update(self, attributions: Tensor, zeros_are_zero: bool = True, scores: Sequence[Tensor | None] = ()) -> None:
        """Takes the attributions of the last draws, (count, ...).

        Attributions beyond the decision that ends the samples are dropped.

        zeros_are_zero: False for a precision in which a small gradient becomes 0.
        scores: the explained scores of the last draws, which references need.
        """
        referred = min(self._waiting, len(attributions))
        self._scores += [score for score in scores[:referred] if score is not None]
        attributions = attributions[referred:]
        if not len(attributions):
            return
        self._zeros_are_zero = self._zeros_are_zero and zeros_are_zero
        attributions = self._draws.weigh(self.samples, attributions)
        if self.query.standard_error is None:
            self._statistic.update(attributions)
            return
        while len(attributions) and not self._ended:
            decision = next_decision(self.samples)
            some, attributions = attributions.tensor_split([decision - self.samples])
            self._statistic.update(some)
            self._ended = self.samples == decision and self._reached()

    def _reached(self) -> bool:
        """Whether the error is as small as the query asks for. Only a query that asks waits for the device here."""
        if self.query.standard_error is None or self.samples < self._fewest:
            return False
        return bool(self._relative_error() <= self.query.standard_error)

    @property
    def _fewest(self) -> int:
        """The smallest number of samples whose error is known well enough to be reached."""
        if self._statistic.kind in ("mean", "mean_square"):
            return 2
        return FEWEST if self._statistic.kind == "covariance" else max(4, min(FEWEST, self.query.count))

    def _relative_error(self) -> Tensor:
        assert not isinstance(self._statistic, Combined)  # its draws are not random
        error = self._statistic.relative_error()
        if self._zeros_are_zero:
            return error
        return torch.where(self._statistic.size() == 0, math.inf, error)

    def estimate(self) -> Attribution:
        """The attribution so far, with its error if the draws are random.

        It needs one sample at least, and two for a variance.
        """
        statistic = self._statistic
        if isinstance(statistic, Combined):
            facts = {"share_done": statistic.share_done}
            return Attribution(self.query, statistic.value(), statistic.samples, facts=facts)
        value, facts = statistic.value(), {}
        if self.query.references:
            facts = dict(cast(Referred, self._draws).facts(value, torch.stack(self._scores)))
        if not self._method.drawn.random:
            return Attribution(self.query, value, statistic.samples, facts=facts)
        return Attribution(
            self.query,
            value,
            statistic.samples,
            statistic.standard_error(),
            self._relative_error().float(),
            self._reached(),
            facts,
        )
