"""SmoothDiff: one backward pass of the image by local derivatives that are means over noisy forward passes.

Hill et al. 2025, "Smoothed Differentiation Efficiently Mitigates Shattered Gradients in Explanations". SmoothGrad
averages whole gradients. This averages the derivative of each nonlinear function, which takes forward passes alone, and
multiplies the means. The product of means is not the mean of products: more samples do not take this difference away.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from typing import Optional, Union

import torch
from torch import Tensor

from .derivatives import Collecting, Plan, Sums
from .halving import in_halves
from .means import Means
from .method import Method
from .network import Answers, Network
from .price import GROUPS, closing
from .query import Attribution, Query
from .registry import METHODS
from .room import Room
from .sizes import padded
from .smoothing import Smoothing
from .statistic import relative


def averages_derivatives(method: Method) -> bool:
    """Whether a method's answer is made of mean local derivatives."""
    return method.statistic == "derivatives"


class SmoothDiff:
    """An explanation by mean local derivatives, in progress. It has no value before it is complete.

    query: its target must be fixed, as of a `Smoothing`.
    means: shared by the explanations of one image that differ in their scores alone.
    leads: whether the samples of the means count as its own.

    Its steps are counted in forward passes: one for each sample, and three for each backward pass at the end.
    """

    def __init__(self, query: Query, means: Means, leads: bool) -> None:
        assert query.target is not None
        assert query.nearest is None or query.others, "at(target, scores) fixes the nearest classes"
        self.query, self.means, self._leads = query, means, leads
        self._closing = closing(query.count, query.standard_error is not None)
        self._answer: Attribution | None = None

    @property
    def samples(self) -> int:
        """The number of samples taken so far."""
        return self.means.taken

    @property
    def left(self) -> int:
        """The forward passes still to do; of samples that are shared, only the first explanation counts them.

        It is 0 with the answer alone: where a pass failed that was counted, one more is left.
        """
        if self._answer is not None:
            return 0
        return max(1, (self.means.samples - self.samples if self._leads else 0) + self._closing)

    @property
    def next_images(self) -> Hashable:
        """As of a `Smoothing`. Nothing else is alike: those that share samples count them once among themselves."""
        return id(self)

    @property
    def presentable(self) -> bool:
        """Whether `estimate` has a value."""
        return self._answer is not None

    def pay(self, count: int) -> int:
        """Takes note of forward passes that it gets, and gives the number of them that are samples."""
        samples = min(count, self.means.samples - self.samples) if self._leads else 0
        self._closing = max(0, self._closing - (count - samples))
        return samples

    @property
    def due(self) -> bool:
        """Whether its backward passes are to be done now."""
        return self._answer is None and not self._closing and self.samples == self.means.samples

    def finish(self, value: Tensor, without: Sequence[Tensor], zeros_are_zero: bool = True) -> None:
        """Takes the answer, (C, H, W), and the answers without each group in turn; none for a single group.

        zeros_are_zero: as of `Smoothing.update`.
        """
        wanted = self.query.standard_error
        if wanted is None:
            self._answer = Attribution(self.query, value, self.samples)
            return
        size = torch.linalg.vector_norm(value.double())
        if without:
            left_out = torch.stack(list(without)).double()
            # The jackknife's variance of groups of the same size.
            squares = (left_out - left_out.mean(0)).square().sum(0) * ((len(without) - 1) / len(without))
            error = relative(squares.sum().sqrt(), size)
        else:
            squares, error = torch.full_like(value, torch.nan), torch.full_like(size, torch.nan)
        if not zeros_are_zero:
            error = torch.where(size == 0, torch.inf, error)
        reached = bool(error <= wanted)
        self._answer = Attribution(self.query, value, self.samples, squares.sqrt().float(), error.float(), reached)

    def estimate(self) -> Attribution:
        """The attribution. Raises ValueError before it is complete."""
        if self._answer is None:
            raise ValueError(f"{self.query.method} has no value before its last sample")
        return self._answer


#: An explanation that takes many passes.
Explanation = Union[Smoothing, SmoothDiff]


def begun(
    image: Tensor, query: Query, prepared: Tensor | None = None, beside: Sequence[Explanation] = ()
) -> Explanation:
    """An explanation of an image, (C, H, W), without samples so far.

    prepared: as of a `Smoothing`.
    beside: other explanations of the same image, whose samples it shares where they are the same.
    """
    if not averages_derivatives(METHODS[query.method]):
        # The method's answer at the image may be the same for every target: then its draws are.
        same = None if prepared is None else _alike(beside, query, prepared)
        return Smoothing(image, query, prepared, same)
    fresh = Means(image, query)
    shared = [one.means for one in beside if isinstance(one, SmoothDiff) and one.means.key == fresh.key]
    return SmoothDiff(query, shared[0] if shared else fresh, leads=not shared)


def _alike(beside: Sequence[Explanation], query: Query, prepared: Tensor) -> Optional[Smoothing]:
    """The explanation of the same image that has the draws which another one would have; None where there is none."""
    for one in beside:
        if isinstance(one, Smoothing) and one.prepared is not None:
            same = (one.query.method, one.sampling) == (query.method, query.sampling)
            if same and torch.equal(one.prepared, prepared):
                return one
    return None


def statistics(shares: Sequence[tuple[Explanation, int]]) -> list[tuple[Smoothing, int]]:
    """The shares of the explanations that are statistics of attributions, without those of no draws."""
    return [(one, count) for one, count in shares if isinstance(one, Smoothing) and count]


def advance(
    network: Network, room: Room, shares: Sequence[tuple[Explanation, int]], precision: str
) -> Generator[None, None, None]:
    """Takes further samples for explanations by mean derivatives, in one forward pass, and ends those that have all.

    shares: explanations, and how many forward passes each one gets; all others are left alone.
    precision: the archive's.

    It works in steps, as `Explainer.steps` does.
    """
    asked = [(one, one.samples, one.pay(count)) for one, count in shares if isinstance(one, SmoothDiff)]
    rows = [(one.means, first + k) for one, first, count in asked for k in range(count)]
    if rows:
        images = torch.cat([one.means.draw(first, count) for one, first, count in asked if count])
        yield from _collect(network, room, images, rows, precision)
    due = [one for one, _, _ in asked if one.due]
    for means in dict.fromkeys(one.means for one in due):
        yield from _finish(network, room, means, [one for one in due if one.means is means], precision)


def derivative_bytes(network: Network, query: Query) -> int:
    """The most bytes that the sums of a picture take at a time for a query; 0 for a method without them."""
    plan = network.choice.plan
    if not averages_derivatives(METHODS[query.method]) or isinstance(plan, str):
        return 0
    # The sums of each group, and those of a further pass that are not added yet. One that leaves a group out is less.
    copies = 1 if query.standard_error is None else min(GROUPS, query.count)
    return 2 * copies * sum(planned.bytes(query.count) for planned in plan)


def _plan(network: Network) -> Plan:
    plan = network.choice.plan
    assert not isinstance(plan, str)  # `check` refused the method
    return plan


def _collect(
    network: Network, room: Room, images: Tensor, rows: Sequence[tuple[Means, int]], precision: str
) -> Generator[None, None, None]:
    """A forward pass of noisy copies. rows: for each, its means and its number."""
    found: list[tuple[tuple[Means, int], Sums]] = []
    done, shortages = 0, room.shortages

    def collect(some: Tensor, asked: Sequence[Sequence[Query]]) -> Generator[None, None, Answers]:
        nonlocal done
        owners = [(means, means.group_of(sample)) for means, sample in rows[done : done + len(some)]]
        keys = list(dict.fromkeys(owners))
        further = len(some) - len(owners)  # up to a fixed size
        collecting = Collecting(_plan(network), [*[keys.index(owner) for owner in owners], *[None] * further])
        answers = yield from network.passes(some, asked, precision, mode=collecting)
        found.extend((keys[number], sums) for number, sums in collecting.found.items())
        done += len(some)
        return answers

    given, nothing = padded(images, [[]] * len(images), room.sizes)
    yield from in_halves(collect, given, nothing, room)
    if room.shortages == shortages:
        room.fitted(len(given))
    for (means, group), sums in found:
        means.add(group, sums)
    for means, _ in rows:
        means.taken += 1


def _finish(
    network: Network, room: Room, means: Means, members: Sequence[SmoothDiff], precision: str
) -> Generator[None, None, None]:
    """The passes of the image by the means, for all scores of it that are explained."""
    groups = [None, *(range(means.groups) if means.groups > 1 else ())]
    answers: list[list[Tensor]] = []
    for group in groups:

        def passes(
            some: Tensor, asked: Sequence[Sequence[Query]], group: int | None = group
        ) -> Generator[None, None, Answers]:
            return network.passes(some, asked, precision, mode=means.following(_plan(network), group))

        _, [row] = yield from in_halves(passes, means.image[None].clone(), [[one.query for one in members]], room)
        answers.append([one.values for one in row])
        if group is not groups[-1]:
            yield
    for number, one in enumerate(members):
        one.finish(answers[0][number], [answer[number] for answer in answers[1:]], precision != "float16")
