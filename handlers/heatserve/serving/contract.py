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
    body: a mapping. Its member `body` is the client's body: bytes, or the members of a JSON body, parsed. The fields of
        a form, and of the address, stand beside it under their names; a picture may also be the field `data`. The body
        is read in the call that admits the row, and may be left out of later ones.
    headers: those of the client, and those that a host writes:
        `Content-Length` as text says that the row came over HTTP, else it counts as gRPC;
        `explain` is "True" or "False", and a host leaves it out where the address does not say it;
        `url_path` is the part of the address behind model and version, as "gradcam" or "describe".

    The body of an answer is bytes. That of a plain prediction is a dictionary, which the host writes as JSON.
    """

    id: str
    body: Any
    headers: Mapping[str, Any]
