"""A client for servers of heatserve: `Client(url, "lite0").explain("cat.jpg", method="smoothgrad", samples=50)`.

The standard library does the talking; numpy and Pillow are imported when a map or a picture is looked at. Needs no
torch. `python -m heatserve.client --help` does the same from a shell.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import itertools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL import Image

#: Bytes of an encoded picture, or the path of one.
Picture = Union[bytes, bytearray, str, "os.PathLike[str]"]
#: Answers that say "not now". A prediction or an explanation changes nothing on the server, so asking again is safe.
AGAIN = (429, 503)


class HeatserveError(Exception):
    """The server refused, or did not answer. code: its HTTP status, 0 where there was no answer. message: its words."""

    def __init__(self, code: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True)
class Prediction:
    """One class of the ranking."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Box:
    """Around the map's largest region, in pixels of the upright photograph; right and bottom exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int
    score: float


@dataclass(frozen=True)
class Explanation:
    """One map. scale: the attribution at grey 255. standard_error: relative to the true map's size (L2), of smoothed
    maps; None too where the map is no larger than its noise.

    converged: whether the standard error that was asked for is reached. Where none was, it is False if a deadline ended
    the samples early, else None. answer: all that the server said of it.
    """

    method: str
    target: Prediction
    score: float
    scale: float
    samples_used: int
    standard_error: float | None
    converged: bool | None
    empty: bool
    boxes: tuple[Box, ...]
    answer: Mapping[str, Any] = field(repr=False)

    @property
    def heatmap(self) -> Image.Image:
        """The map on the upright photograph, 8-bit grey."""
        return _picture(self.answer["heatmap"]["data"])

    @property
    def map(self) -> NDArray[numpy.float32]:
        """The map on the upright photograph in attribution units, float32 (height, width).

        As precise as 8 bits: `Client.raw` gives the model's own view in float32.
        """
        import numpy

        return numpy.asarray(self.heatmap, numpy.float32) * numpy.float32(self.scale / 255)

    @property
    def overlay(self) -> Image.Image:
        """The map laid over the photograph; ask for it with `overlay=True`, as `Client.explain` does."""
        if "overlay" not in self.answer:
            raise ValueError("the answer holds no overlay; ask with overlay=True")
        return _picture(self.answer["overlay"]["data"])


@dataclass(frozen=True)
class Result:
    """The answer to `Client.explain`: the ranking, a map for each target, and where the model looked at all.

    size: (width, height) of the upright photograph. seen: (x0, y0, x1, y1) of it, what the model's crop showed to it.
    """

    predictions: tuple[Prediction, ...]
    explanations: tuple[Explanation, ...]
    size: tuple[int, int]
    seen: tuple[int, int, int, int]
    model: Mapping[str, Any]
    timing_ms: Mapping[str, float]
    answer: Mapping[str, Any] = field(repr=False)

    @property
    def explanation(self) -> Explanation:
        """The first one, which is the only one unless several targets were asked for."""
        return self.explanations[0]

    @property
    def map(self) -> NDArray[numpy.float32]:
        return self.explanation.map

    @property
    def overlay(self) -> Image.Image:
        return self.explanation.overlay

    @property
    def boxes(self) -> tuple[Box, ...]:
        return self.explanation.boxes

    @staticmethod
    def of(answer: Mapping[str, Any]) -> Result:
        """From the JSON of an answer."""
        x0, y0, x1, y1 = answer["image"]["seen"]
        return Result(
            tuple(Prediction(**entry) for entry in answer["predictions"]),
            tuple(_explanation(entry) for entry in answer["explanations"]),
            (answer["image"]["width"], answer["image"]["height"]),
            (x0, y0, x1, y1),
            answer["model"],
            answer["timing_ms"],
            answer,
        )


class Client:
    """One model of one server.

    url: `http://host:port`, or https. token: TorchServe's inference key where its authorization is on. timeout: seconds
    without a byte from the server. retries: how often a request that the server was too busy for is sent again, after
    the time that it names; a connection that breaks while an answer is on its way is not tried again, as a long
    explanation may still be running.
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
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the server's address goes http://host:port, not {url!r}")
        self._parts = parts
        self._path = "/".join(quote(part, safe="") for part in (model, version) if part)
        self._model = quote(model, safe="")
        # Only `describe` has to name one.
        self._version = quote(version or "1.0", safe="")
        self._token, self._timeout, self._retries, self._sleep = token, timeout, retries, sleep

    def predict(self, picture: Picture, top_k: int | None = None) -> dict[str, float]:
        """The likeliest classes and their probabilities. Raises HeatserveError."""
        answer: dict[str, float] = self._json("POST", f"/predictions/{self._path}", *_asked(picture, {"top_k": top_k}))
        return answer

    def explain(self, picture: Picture, *, overlay: bool = True, **options: Any) -> Result:
        """Prediction and maps. Options are the server's: method, target, samples, … Raises HeatserveError."""
        asked = _asked(picture, {"overlay": overlay, **options})
        return Result.of(self._json("POST", f"/explanations/{self._path}", *asked))

    def raw(self, picture: Picture, **options: Any) -> NDArray[numpy.float32]:
        """The map itself on the model's view, float32 (H, W), or (targets, H, W). Raises HeatserveError."""
        import numpy

        content = self._send("POST", f"/explanations/{self._path}", *_asked(picture, {**options, "output": "npy"}))
        values: NDArray[numpy.float32] = numpy.load(io.BytesIO(content), allow_pickle=False)
        return values

    def stream(self, picture: Picture, *, overlay: bool = False, **options: Any) -> Iterator[Result]:
        """The explanation as it gets better; the last one is complete. Whoever stops iterating hangs up.

        Raises HeatserveError, also for a fault after the first estimate.
        """
        asked = _asked(picture, {"overlay": overlay, **options, "stream": True})
        with self._response("POST", f"/explanations/{self._path}", *asked) as response:
            for line in response:
                if not line.strip():
                    continue
                answer = json.loads(line)
                if "explanations" not in answer:
                    raise HeatserveError(answer.get("code", 500), answer.get("message", "the stream broke off"))
                yield Result.of(answer)

    def describe(self) -> dict[str, Any]:
        """What this model can be asked for: methods, options, limits, layers, versions. Raises HeatserveError."""
        answer: dict[str, Any] = self._json("GET", f"/explanations/{self._model}/{self._version}/describe", None, {})
        return answer

    def _json(self, verb: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        content = self._send(verb, path, body, headers)
        try:
            return json.loads(content)
        except ValueError:
            raise HeatserveError(0, "the answer is not JSON: is this address a TorchServe's?") from None

    def _send(self, verb: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        with self._response(verb, path, body, headers) as response:
            return response.read()

    @contextmanager
    def _response(
        self, verb: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """A good answer, not read yet."""
        for attempt in range(self._retries + 1):
            connection = self._connection()
            try:
                response = self._request(connection, verb, path, body, headers)
                if response.status == 200:
                    try:
                        yield response
                    except (OSError, http.client.HTTPException) as error:
                        raise HeatserveError(0, f"the answer broke off: {error}") from error
                    return
                refusal = _error(response)
                if refusal.code not in AGAIN or attempt == self._retries:
                    raise refusal
            finally:
                connection.close()
            self._sleep(min(refusal.retry_after if refusal.retry_after is not None else 2.0**attempt, 60.0))

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(str(self._parts.hostname), self._parts.port, timeout=self._timeout)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        verb: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        sent = {"Content-Type": "application/octet-stream", **headers}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(verb, self._parts.path.rstrip("/") + path, body, sent)
            return connection.getresponse()
        except socket.timeout as error:
            raise HeatserveError(0, f"no answer within {self._timeout:g} seconds") from error
        except (OSError, http.client.HTTPException) as error:
            raise HeatserveError(0, f"{self._parts.netloc} does not answer: {error}") from error


def _explanation(entry: Mapping[str, Any]) -> Explanation:
    target, quality = entry["target"], entry["quality"]
    return Explanation(
        entry["method"],
        Prediction(target["index"], target["label"], target["probability"]),
        target["score"],
        entry["heatmap"]["scale"],
        quality["samples_used"],
        quality["standard_error"],
        quality["converged"],
        quality["empty"],
        tuple(Box(**box) for box in entry.get("boxes", ())),
        entry,
    )


def _asked(picture: Picture, options: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Body and headers: the picture as it is and options as headers, or JSON where a label is not ASCII."""
    image = _bytes(picture)
    given = {name: value for name, value in options.items() if value is not None}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
    if all(text.isascii() and text.isprintable() for text in texts.values()):
        return image, {f"X-Explain-{name.replace('_', '-')}": text for name, text in texts.items()}
    body = json.dumps({**texts, "data": base64.b64encode(image).decode("ascii")})
    return body.encode(), {"Content-Type": "application/json"}


def _bytes(picture: Picture) -> bytes:
    return bytes(picture) if isinstance(picture, (bytes, bytearray)) else Path(picture).read_bytes()


def _picture(data: str) -> Image.Image:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(data)))


def _error(response: http.client.HTTPResponse) -> HeatserveError:
    content = response.read(65_536)
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = response.reason or "refused without a word"
    after = response.headers.get("Retry-After", "")
    return HeatserveError(response.status, message, float(after) if after.isdigit() else None)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = _parser()
    given = parser.parse_args(arguments)
    options = dict(pair.split("=", 1) for pair in given.option if "=" in pair)
    if len(options) != len(given.option):
        parser.error("an option goes NAME=VALUE; --describe lists them")
    for name in ("method", "target", "samples"):
        if getattr(given, name) is not None:
            options[name] = getattr(given, name)
    client = Client(given.url, given.model, given.token, version=given.version, timeout=given.timeout)
    try:
        if given.describe:
            print(json.dumps(client.describe(), indent=1))
        elif not given.pictures:
            parser.error("which picture? (--describe needs none)")
        for picture in given.pictures:
            _explain(client, picture, options, given)
    except (HeatserveError, OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _explain(client: Client, picture: Path, options: dict[str, Any], given: argparse.Namespace) -> None:
    if given.json:
        print(json.dumps(client.explain(picture, overlay=False, **options).answer))
        return
    result = client.explain(picture, **{"boxes": True, **options})
    ranking = ", ".join(f"{entry.label} {entry.probability:.2f}" for entry in result.predictions[:3])
    print(f"{picture}: {ranking}")
    for found in result.explanations:
        model = "-".join(part for part in (given.model, given.version) if part)
        name = f"{picture.stem}-{model}-{found.method}-{found.target.index}"
        target = _write(given.output or picture.parent, name, found.overlay)
        error = "" if found.standard_error is None else f", standard error {found.standard_error:.2f} of the map"
        print(f"  {found.method} of {found.target.label}: {target}{error}{' (empty map)' if found.empty else ''}")


def _write(folder: Path, name: str, overlay: Image.Image) -> Path:
    """Writes a PNG and gives its path. A file that is there already stays: the name then gets a number."""
    folder.mkdir(parents=True, exist_ok=True)
    safe, content = re.sub(r"[^\w.-]", "_", name), io.BytesIO()
    overlay.save(content, "PNG")
    for number in itertools.count(1):
        path = folder / (f"{safe}.png" if number == 1 else f"{safe}-{number}.png")
        with suppress(FileExistsError), open(path, "xb") as file:
            file.write(content.getvalue())
            return path
    raise AssertionError("the numbers do not end")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m heatserve.client",
        description="Ask a server what it sees in pictures and where it looked; the overlays are written beside them, "
        "as PICTURE-MODEL-METHOD-CLASS.png; a file that is there already is kept, and the new one gets a number.",
        epilog="The token may also stand in the environment variable HEATSERVE_TOKEN, where other users of the machine "
        "do not see it.",
    )
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="JPEG, PNG, WebP, GIF, BMP or TIFF")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    parser.add_argument("--model", default="lite0", help="the model's name (default: %(default)s)")
    parser.add_argument("--version", help="the model's version (default: the server's choice)")
    parser.add_argument("--token", default=os.environ.get("HEATSERVE_TOKEN"), help="TorchServe's inference key")
    parser.add_argument("--method", help="gradcam, cam, gradient, smoothgrad, …")
    parser.add_argument("--target", help="a class index or label, predicted, or top1 to top10")
    parser.add_argument("--samples", help="noisy copies to average")
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="any other option")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write (default: beside the picture)")
    parser.add_argument("--json", action="store_true", help="print the answer and write nothing")
    parser.add_argument("--describe", action="store_true", help="print what the model can be asked for")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds without a byte (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
