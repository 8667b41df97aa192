"""Questions to the management API of a running TorchServe."""

from __future__ import annotations

import http.client
import json
import urllib.request
from typing import Any

#: Never through a proxy: the server is on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def description(address: str, model: str, token: str | None) -> dict[str, Any] | None:
    """TorchServe's description of a model; None where it gives none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{address}/models/{model}", headers=headers)
    try:
        with _OPENER.open(request, timeout=5) as answer:
            return dict(json.load(answer)[0])
    except (OSError, ValueError, http.client.HTTPException):  # no connection, a status of an error, no JSON, no HTTP
        return None


def workers(description: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The workers in a model's description; none without one."""
    return list(description["workers"]) if description else []


def is_ready(description: dict[str, Any] | None) -> bool:
    """Whether a model has all the workers that it should have, and each of them has loaded it."""
    if description is None:
        return False
    there = workers(description)
    return len(there) >= max(1, int(description["minWorkers"])) and all(one["status"] == "READY" for one in there)
