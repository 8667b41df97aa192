"""The requests of the demo, by the standard library."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from heatserve_tools.errors import ToolError

#: The methods that are shown: a name, and the options that ask for it.
METHODS = {
    "gradcam": {"method": "gradcam"},
    "cam": {"method": "cam"},
    "gradient": {"method": "gradient"},
    "smoothgrad": {"method": "smoothgrad"},
    "smoothgrad_squared": {"method": "smoothgrad_squared"},
    "vargrad": {"method": "vargrad"},
    "gradcam, 10 samples": {"method": "gradcam", "samples": "10"},
}
TIMEOUT = 300
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def predict(address: str, image: bytes, model: str = "lite0") -> dict[str, float]:
    """The labels and probabilities of a picture. Raises ToolError."""
    prediction: dict[str, float] = json.loads(_post(f"{address}/predictions/{model}", image, {}))
    return prediction


def explain(address: str, image: bytes, shown: str, model: str = "lite0", **options: str) -> dict[str, Any]:
    """The answer to one of `METHODS`. Raises ToolError."""
    answer: dict[str, Any] = json.loads(_explained(address, image, {**METHODS[shown], **options}, model))
    return answer


def overlay(address: str, image: bytes) -> bytes:
    """The picture with the default method's map over it, as a PNG file. Raises ToolError."""
    return _explained(address, image, {"output": "png"}, "lite0")


def _explained(address: str, image: bytes, options: Mapping[str, str], model: str) -> bytes:
    headers = {f"X-Explain-{name.title()}": value for name, value in options.items()}
    return _post(f"{address}/explanations/{model}", image, headers)


def _post(url: str, image: bytes, headers: Mapping[str, str]) -> bytes:
    request = urllib.request.Request(url, image, {"Content-Type": "application/octet-stream", **headers})
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        raise ToolError(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from None
    except (OSError, http.client.HTTPException) as error:
        raise ToolError(f"{url} did not answer: {error}") from None
