"""The bytes of pictures that wait, as the limit on them counts."""

from __future__ import annotations

import math

from .items import Item
from .states import Admitted, Decoded

#: The part of a waiting picture's bytes that counts: it stays for some steps, an explanation for hundreds.
_STEPS_UNDECODED = 0.25


def waiting_bytes(item: Item) -> float:
    """The bytes of an item that stay with the host, as the limit on them counts."""
    request = item.state.request
    if request is None:
        return 0.0
    pixels = _decoded_bytes(item) * _STEPS_UNDECODED
    if item.long:
        return len(request.image) + pixels
    costly = isinstance(item.state, Admitted) and item.state.costly
    return pixels + (len(request.image) * _STEPS_UNDECODED if costly else 0.0)


def _decoded_bytes(item: Item) -> int:
    """The bytes of a picture that is decoded and waits for its first pass, with the photograph at full size if held."""
    state, full = item.state, 0
    found: object = state
    if isinstance(state, Admitted) and item.reading is not None and item.reading.done():
        if item.reading.cancelled() or item.reading.exception() is not None:
            return 0
        found = item.reading.result().found
        full = 3 * math.prod(state.size) if state.opened is not None else 0
    if not isinstance(found, Decoded):
        return full
    shown = found.photograph.image if found.photograph is not None else None
    return full + found.image.nbytes + (3 * math.prod(shown.size) if shown is not None else 0)
