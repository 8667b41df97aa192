"""Sharing: explanations of one picture whose draws are the same images share the forward pass of each draw.

Several targets of a request see the same noise, masks or points of a path. A draw then costs one forward pass, and one
backward pass for each score that is explained.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from .price import FORWARD
from .query import Query
from .registry import METHODS
from .smoothdiff import Explanation


def alike(smoothings: Sequence[Explanation]) -> list[list[int]]:
    """The numbers of explanations in groups: those of a group have the same images for their next draws.

    Both numbers and groups are in order. A pass has one precision, so that a group has one too.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, smoothing in enumerate(smoothings):
        groups.setdefault((smoothing.next_images, smoothing.query.own_precision), []).append(number)
    return list(groups.values())


def price_of(queries: Sequence[Query]) -> int:
    """The cost of one image that some queries share, in forward passes: the forward pass counts once.

    It is an upper bound, as each query's own `price` is.
    """
    beyond = {(query.score, query.method): query.price - FORWARD for query in queries}
    return FORWARD + sum(beyond.values())


def work_of(queries: Sequence[Query]) -> int:
    """The cost of the answers to one picture's queries, in forward passes, beyond the pass that predictions share."""
    groups: dict[Hashable, list[Query]] = {}
    for number, query in enumerate(queries):
        if query.work:
            groups.setdefault(_images(query, number), []).append(query)
    return sum(
        price_of(group) * (group[0].count + group[0].references if group[0].smoothed else 1)
        + sum(query.ending for query in group)
        for group in groups.values()
    )


def _images(query: Query, number: int) -> Hashable:
    """Equal for queries that one pass of an image answers, or passes of the same draws.

    number: of the query. Draws that depend on an answer at the image may differ from query to query.
    """
    if not query.smoothed:
        return None
    row = METHODS[query.method]
    return row.drawn, query.sampling, query.own_precision, None if row.prepare is None else number
