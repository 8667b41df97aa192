"""The doors that a row may come in by: each finds the pictures and options of its clients, and answers in their shape.

TorchServe does not say which address a request was sent to. What tells is what the frontend adds: to `/predictions`,
`/explanations` and the KServe routes it writes a header `explain`, over gRPC there is no HTTP header at all, and what
is left came by `/invocations`. Whether a body is KServe's shows in its members.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import refusal_of, where
from .door import MAX_MAPS, Door, Instance, over_http
from .kserve_v1 import KServeV1
from .kserve_v2 import KServeV2, refuse_binary
from .rest import Rest, instance_of, json_body

__all__ = ["MAX_MAPS", "Door", "Instance", "KServeV1", "KServeV2", "Rest", "door_of", "over_http"]


logger = logging.getLogger(__name__)


def door_of(row: Any, headers: Mapping[str, Any]) -> Door:
    """The door of one row, opened. Never raises, as other rows share its batch: what is wrong is in the instances."""
    try:
        return _opened(row, headers)
    except Exception as error:
        logger.error("heatserve: a row could not be read: %s", where(error))
        return Rest(Instance(refusal=refusal_of(error)), False, over_http(headers))


def _opened(row: Any, headers: Mapping[str, Any]) -> Door:
    http, body = over_http(headers), json_body(row)
    explains = _explains(row, body, headers["explain"] if http and "explain" in headers else None)
    if body is not None and "inputs" in body:
        return KServeV2(body, explains, http)
    if body is not None and "instances" in body:
        return KServeV1(body, explains, http)
    fault = refuse_binary(headers)
    return Rest(Instance(refusal=fault) if fault else instance_of(row), explains, http)


def _explains(row: Any, body: Mapping[Any, Any] | None, said: Any) -> bool:
    """Where the server says what it is, a client has no say."""
    if isinstance(said, str) and said in ("True", "False"):
        return said == "True"
    wanted = row.get("explain") if isinstance(row, Mapping) else None
    if wanted is None and body is not None:
        wanted = body.get("explain")
    if isinstance(wanted, (bytes, bytearray)):
        wanted = bytes(wanted).decode("ascii", "replace")
    return wanted is True or (isinstance(wanted, str) and wanted.strip().lower() in ("true", "1", "yes", "on"))
