"""Presence: a query may ask for its class only if the class is likely enough.

Else it is dropped after the forward pass, before any work for its map is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .activation import probabilities
from .query import Query
from .ranking import ranking


def explained_class(query: Query, ranked: Sequence[int], likely: Sequence[float]) -> int | None:
    """The class that a query of one image explains; None where it is not likelier than the query's `least`.

    ranked: the classes of the image by falling score.
    likely: the probability of each class.
    """
    target = ranked[query.rank] if query.target is None else query.target
    return target if query.least is None or likely[target] > query.least else None


def kept(queries: Sequence[Sequence[Query]], logits: Tensor, activation: str) -> Sequence[Sequence[Query]]:
    """The queries of each row without those that are dropped. Nothing is read back from the device unless one may be.

    logits: (N, classes).
    """
    if all(query.least is None for row in queries for query in row):
        return queries
    ranked, likely = ranking(logits).tolist(), probabilities(logits, activation).tolist()
    return [
        [query for query in row if explained_class(query, ranked[number], likely[number]) is not None]
        for number, row in enumerate(queries)
    ]
