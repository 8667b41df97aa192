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
    body: a mapping. Under "body" or "data" it has the bytes of a picture, or the members of a JSON body as the host
        parsed them; other entries are fields of a form or of the address. It is read in the call that admits the row,
        and may be left out of later ones.
    headers: as the client and the host wrote them. Those of the host decide how the row is read: `Content-Length` says
        that it came over HTTP, and `explain`, "True" or "False", whether it asks for maps. `url_path` has the words
        that follow the model in the address.

    The body of an answer is bytes. That of a plain prediction is a dictionary, which the host writes as JSON.
    """

    id: str
    body: Any
    headers: Mapping[str, Any]
