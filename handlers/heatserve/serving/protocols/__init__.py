"""The protocols in which a row may be sent and answered.

TorchServe does not say to which address a client sent a row. The protocol follows from three signs:
- a header `explain`, which the frontend writes for `/predictions`, `/explanations` and the KServe routes;
- HTTP headers, which a row over gRPC does not have; a row with HTTP headers but without `explain` came by
  `/invocations`;
- the members of a JSON body, by which KServe's protocols are known.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import refusal_of, where
from .kserve_v1 import KServeV1
from .kserve_v2 import KServeV2, refuse_binary
from .protocol import MOST, Input, RowProtocol, over_http
from .rest import Rest, input_of, json_body

__all__ = ["MOST", "Input", "KServeV1", "KServeV2", "Rest", "RowProtocol", "over_http", "protocol_of"]

logger = logging.getLogger(__name__)


def protocol_of(body: Any, headers: Mapping[str, Any]) -> RowProtocol:
    """The protocol of one row, with the row's inputs.

    Never raises, as other rows share the batch: a row that cannot be read becomes one refused input.
    """
    try:
        return _read(body, headers)
    except Exception as error:
        logger.error("heatserve: a row could not be read: %s", where(error))
        return Rest(Input(refusal=refusal_of(error)), False, over_http(headers))


def _read(row: Any, headers: Mapping[str, Any]) -> RowProtocol:
    http, body = over_http(headers), json_body(row)
    explains = _explains(row, body, headers["explain"] if http and "explain" in headers else None)
    if body is not None and "inputs" in body:
        return KServeV2(body, explains, http)
    if body is not None and "instances" in body:
        return KServeV1(body, explains, http)
    fault = refuse_binary(headers)
    return Rest(Input(refusal=fault) if fault else input_of(row), explains, http)


def _explains(row: Any, body: Mapping[Any, Any] | None, header: Any) -> bool:
    """Whether the row asks for maps. The server's own header decides; a client's member `explain` does without it."""
    if isinstance(header, str) and header in ("True", "False"):
        return header == "True"
    wanted = row.get("explain") if isinstance(row, Mapping) else None
    if wanted is None and body is not None:
        wanted = body.get("explain")
    if isinstance(wanted, (bytes, bytearray)):
        wanted = bytes(wanted).decode("ascii", "replace")
    return wanted is True or (isinstance(wanted, str) and wanted.strip().lower() in ("true", "1", "yes", "on"))
