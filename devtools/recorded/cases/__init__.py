"""All cases of a recording, in the order in which they are sent."""

from __future__ import annotations

from collections import Counter

from devtools.recorded.cases import continuous, explanations, pictures, protocols, refusals, requests, starts
from devtools.recorded.cases.case import Case


def every() -> list[Case]:
    """The cases; their names are unique."""
    families = (explanations, requests, protocols, pictures, refusals, continuous, starts)
    cases = [case for family in families for case in family.cases()]
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise ValueError(f"cases with the same name: {', '.join(twice)}")
    return cases
