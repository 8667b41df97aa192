"""Products: methods that combine the attributions of other methods, which come from the same forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from .query import Attribution, Query
from .registry import METHODS


def factors(query: Query) -> list[Query]:
    """The queries whose attributions a query's method combines; the query itself where it combines none."""
    return [replace(query, method=name) for name in METHODS[query.method].factors] or [query]


def combined(queries: Sequence[Sequence[Query]], found: Sequence[Sequence[Attribution]]) -> list[list[Attribution]]:
    """One attribution for each query of each row.

    found: of each row, the attributions of all its queries' factors, in order.
    """
    answers: list[list[Attribution]] = []
    for row, of_row in zip(queries, found):
        left, own = iter(of_row), []
        for query in row:
            parts = [next(left) for _ in factors(query)]
            own.append(parts[0] if not METHODS[query.method].factors else _combined(query, parts))
        answers.append(own)
    return answers


def _combined(query: Query, parts: Sequence[Attribution]) -> Attribution:
    target = parts[0].query.target
    assert target is not None  # an attribution's query has its target fixed
    with torch.no_grad():
        values = METHODS[query.method].attribute(*(part.values[None] for part in parts))[0]
    return replace(parts[0], query=query.at(target), values=values)
