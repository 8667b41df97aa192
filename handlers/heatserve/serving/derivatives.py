"""The memory of explanations by mean local derivatives, which they need until their last sample: it is bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..engine import Query
from .errors import Refusal
from .items import Item
from .requests import Request

#: The bytes of the sums of all pictures under way. A picture takes 22 MB with a ResNet-50, and five times as much
#: where an error is asked for.
MOST = 1_000_000_000

#: Gives the bytes that the sums of one picture take, for a query.
Bytes = Callable[[Query], int]


def bound_derivatives(
    request: Request, own: Sequence[Item], before: Sequence[Item], of: Bytes, retry_after: Callable[[], int]
) -> None:
    """Refuses a picture whose sums do not fit beside those under way. One picture alone is never refused.

    own: the pictures of the same request, admitted before.
    before: those of the requests that came before.
    """
    asked = _bytes(request, of)
    if not asked:
        return
    kept = sum(_bytes(item.state.request, of) for item in own)
    if kept and kept + asked > MOST:
        raise Refusal(
            413,
            f"at most {max(1, MOST // asked)} pictures of one request can be explained by mean derivatives with this "
            "model: send fewer pictures",
        )
    waiting = sum(_bytes(item.state.request, of) for item in before)
    if waiting and waiting + kept + asked > MOST:
        raise Refusal(503, "too much explanation is under way; try again later", retry_after=retry_after())


def _bytes(request: Request | None, of: Bytes) -> int:
    """The bytes of the sums of a request's picture, which all of its targets share."""
    return max(map(of, request.queries), default=0) if request else 0
