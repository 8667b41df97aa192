"""The contract between a host and the core: the version of the call, and a row as the host hands it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The version of `Service.call`. The packager writes it into the manifest as `heatserve.contract`.
CONTRACT = 1


@dataclass(frozen=True)
class Row:
    """One request that waits for its answer.

    id: the host's name for it, the same in every call.
    body: as the client sent it. It is read in the call that admits the row, and may be left out of later ones.
    headers: as the client and the host wrote them.
    """

    id: str
    body: Any
    headers: Mapping[str, Any]
