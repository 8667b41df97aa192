"""Facts on the rows of a call, for the metrics. The core makes them, and emits nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..engine import Attribution
from .errors import Refusal
from .items import OpenRow
from .requests import Request


def row_kind(row: OpenRow) -> str:
    """The kind of a row that was just admitted: refused, explanation or prediction."""
    if all(item.state.request is None for item in row.items):
        return "refused"
    return "explanation" if row.protocol.explains else "prediction"


@dataclass(frozen=True)
class ItemFacts:
    """Facts on one answered item, for the metrics.

    explains: whether its row asked for maps, known of a request that could not be read too.
    seconds: by stage.
    attributions: of a finished item.
    empty_maps: how many of them have no positive part.
    """

    explains: bool
    request: Request | None
    refusal: Refusal | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    attributions: Sequence[Attribution] = ()
    empty_maps: int = 0


@dataclass(frozen=True)
class CallFacts:
    """The facts that one call of the core leaves for the metrics.

    admitted: the kind of each new row, by its id.
    answered: the facts of each answered row's items, by its id.
    given_up: requests whose client had gone.
    under_way: explanations that take further passes.
    fallbacks: forward passes that were halved since the start.
    """

    admitted: Mapping[str, str] = field(default_factory=dict)
    answered: Mapping[str, Sequence[ItemFacts]] = field(default_factory=dict)
    given_up: int = 0
    under_way: int = 0
    fallbacks: int = 0

    def then(self, later: CallFacts) -> CallFacts:
        """The facts of this call and a later one as those of one call. Answered rows stand in order of admission."""
        admitted = {**self.admitted, **later.admitted}
        answered = {**self.answered, **later.answered}
        places = {row_id: place for place, row_id in enumerate(admitted)}
        ordered = sorted(answered, key=lambda row_id: places.get(row_id, -1))
        return CallFacts(
            admitted=admitted,
            answered={row_id: answered[row_id] for row_id in ordered},
            given_up=self.given_up + later.given_up,
            under_way=later.under_way,
            fallbacks=max(self.fallbacks, later.fallbacks),
        )
