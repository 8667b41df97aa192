"""The client of one model on one server."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import HeatserveError
from .requests import Picture, Request, encode
from .results import Result
from .transport import Transport, server_of

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class Client:
    """One model of one server.

    url: the server's address, `http://host:port` or https.
    model: the model's name.
    token: TorchServe's inference key, for a server whose authorization is on. ValueError for one that no header can
        carry.
    version: the model's version. The server chooses one by default.
    timeout: the seconds to wait without a byte from the server.
    retries: how often a request is sent again after a busy server refused it. The client waits as long as the server
        says. It does not send a request again after a connection broke, as a long explanation may still be running.
    sleep: the function that waits.
    """

    def __init__(
        self,
        url: str,
        model: str,
        token: str | None = None,
        *,
        version: str | None = None,
        timeout: float = 300.0,
        retries: int = 3,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if token and not (token.isascii() and token.isprintable()):
            raise ValueError("the token holds characters that no header can carry")
        self._transport = Transport(server_of(url), token, timeout, retries, sleep)
        self._path = "/".join(quote(part, safe="") for part in (model, version) if part)
        # The path of `describe` has a version in every case.
        self._versioned = "/".join(quote(part, safe="") for part in (model, version or "1.0"))

    def predict(self, picture: Picture, top_k: int | None = None) -> dict[str, float]:
        """The likeliest classes and their probabilities, or the values of a regression. Raises HeatserveError."""
        request = encode(picture, {"top_k": top_k})
        answer: dict[str, float] = self._json("POST", f"/predictions/{self._path}", request)
        return answer

    def explain(self, picture: Picture, *, overlay: bool = True, **options: Any) -> Result:
        """The prediction and its maps. The options are the server's: method, target, samples and so on.

        Raises HeatserveError.
        """
        request = encode(picture, {"overlay": overlay, **options})
        return _result(self._json("POST", f"/explanations/{self._path}", request))

    def raw(self, picture: Picture, **options: Any) -> NDArray[numpy.float32]:
        """The map on the model's view, float32 (H, W), or (targets, H, W). Raises HeatserveError."""
        import numpy

        request = encode(picture, {**options, "output": "npy"})
        content = self._transport.content("POST", f"/explanations/{self._path}", request)
        values: NDArray[numpy.float32] = numpy.load(io.BytesIO(content), allow_pickle=False)
        return values

    def stream(self, picture: Picture, *, overlay: bool = False, **options: Any) -> Iterator[Result]:
        """The explanation as it gets better. The last result is complete. To stop iterating closes the connection.

        Raises HeatserveError, also for a fault after the first estimate.
        """
        request = encode(picture, {"overlay": overlay, **options, "stream": True})
        with self._transport.response("POST", f"/explanations/{self._path}", request) as response:
            for line in response:
                if not line.strip():
                    continue
                answer = json.loads(line)
                if "explanations" not in answer:
                    raise HeatserveError(answer.get("code", 500), answer.get("message", "the stream broke off"))
                yield _result(answer)

    def describe(self) -> dict[str, Any]:
        """The methods, options, limits, layers and versions of this model. Raises HeatserveError."""
        path = f"/explanations/{self._versioned}/describe"
        answer: dict[str, Any] = self._json("GET", path, Request(None, {}))
        return answer

    def _json(self, verb: str, path: str, request: Request) -> Any:
        content = self._transport.content(verb, path, request)
        try:
            return json.loads(content)
        except ValueError:
            raise HeatserveError(0, "the answer is not JSON: is this address a TorchServe's?") from None


def _result(answer: Any) -> Result:
    try:
        return Result.of(answer)
    except (KeyError, TypeError, ValueError):
        raise HeatserveError(
            0, "the answer is no explanation of heatserve's: which handler serves this model?"
        ) from None
