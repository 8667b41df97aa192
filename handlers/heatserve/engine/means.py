"""Means: the sums of a picture's local derivatives, which noisy forward passes add to."""

from __future__ import annotations

from torch import Tensor

from .derivatives import Following, Plan, Sums, added
from .price import GROUPS
from .query import Query
from .sampling import Noise


class Means:
    """The sums of local derivatives over the noisy copies of one image. They depend on no target.

    image: (C, H, W).
    groups: one, or those of a jackknife; sample number k is in group k modulo their number.
    taken: the number of samples so far.
    """

    def __init__(self, image: Tensor, query: Query) -> None:
        self.image, self.samples, self.taken = image, query.count, 0
        self.key = (query.method, query.sampling, query.standard_error is not None)
        self.groups = min(GROUPS, query.count) if query.standard_error is not None else 1
        self._draws = Noise.of(image, query.sampling)
        self._sums: list[Sums | None] = [None] * self.groups

    def draw(self, first: int, count: int) -> Tensor:
        """Noisy copies, (count, C, H, W)."""
        return self._draws.draw(first, count)

    def group_of(self, sample: int) -> int:
        """The group of a sample."""
        return sample % self.groups

    def add(self, group: int, sums: Sums) -> None:
        """Takes the sums of further samples of a group."""
        self._sums[group] = added(self._sums[group], sums, self.samples)

    def following(self, plan: Plan, without: int | None = None) -> Following:
        """The mode of a pass by the means. without: a group that is left out."""
        total: Sums | None = None
        for group, sums in enumerate(self._sums):
            if group != without and sums is not None:
                mine = sums if total is not None or self.groups == 1 else _copy(sums)
                total = added(total, mine, self.samples)
        assert total is not None
        count = sum(self.group_of(sample) != without for sample in range(self.taken))
        return Following(plan, total, count)


def _copy(sums: Sums) -> Sums:
    return [tuple(one.clone() for one in call) for call in sums]
