"""From finished exchanges to what goes out: status, type, headers, body."""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..imaging import npy
from .errors import Refusal, refusal_of, where
from .exchange import Exchange, Visit
from .options import MEDIA_TYPES, OUTPUTS, PICTURES, STREAM
from .rendering import Drawing, View, draw, view
from .report import Report
from .requests import Request
from .settings import Limits

logger = logging.getLogger(__name__)

Rendered = TypeVar("Rendered")
_SMALLEST_SIDE = 64
#: Of PNGs that compress well: grey maps, and photographs with a map over them.
_BYTES_PER_PIXEL = {False: 0.02, True: 0.5}
#: Bytes left for what surrounds an answer.
_ENVELOPE = 1_000


@dataclass(frozen=True)
class Answer:
    """body: bytes, or the dict of a plain prediction, which TorchServe encodes as it does the stock handler's.

    more: None for an answer that is whole; in a stream whether more lines follow.
    """

    status: int
    body: bytes | dict[str, Any]
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    more: bool | None = None


@dataclass(frozen=True)
class Pieces:
    """One exchange for an envelope of typed tensors. about: JSON text. maps: float32 (H, W) on the model's view.

    pictures: base64 text in place of maps. overlays: base64 text besides. refusal: instead of them all.
    """

    about: str
    maps: Sequence[NDArray[np.float32]] = ()
    pictures: Sequence[str] = ()
    overlays: Sequence[str] = ()
    refusal: Refusal | None = None

    @property
    def count(self) -> int:
        return max(len(self.maps), len(self.pictures))


@dataclass(frozen=True)
class Writer:
    """Writes the answers of one archive: all of a visit through its door, which asks for its exchanges one by one."""

    report: Report
    limits: Limits
    description: Mapping[str, Any]

    def write(self, visit: Visit) -> Answer:
        """Never raises: what cannot be rendered is answered as an error."""
        try:
            answer = self._within_limit(visit.door.answer(self, visit.exchanges))
        except Exception as error:
            _log(error)
            visit.refuse(refusal_of(error))
            answer = visit.door.refused(self, refusal_of(error))
        first = visit.exchanges[0]
        if first.lines:
            return _line(answer, more=False)
        streamed = first.refusal is None and first.request is not None and first.request.stream
        return _line(answer) if streamed else answer

    def line(self, exchange: Exchange) -> Answer | None:
        """The next line of a stream: the maps as they stand. None after a fault, which ends the exchange."""
        try:
            assert exchange.request is not None
            answer = self._within_limit(self._explanation(exchange, exchange.request, 1))
        except Exception as error:
            _log(error)
            exchange.refuse(refusal_of(error))
            return None
        exchange.lines = exchange.improvements
        return _line(answer, more=True)

    def alone(self, exchange: Exchange, among: int = 1) -> Answer:
        """The answer of one exchange; where it shares an envelope, that of so many. A fault is an answer too."""

        def answer(request: Request) -> Answer:
            if request.describes:
                return self.ok(self.json(self.description))
            if not request.queries:
                return Answer(200, self.report.prediction(exchange))
            return self._explanation(exchange, request, among)

        found = self._unless_refused(exchange, answer)
        return self.refused(found) if isinstance(found, Refusal) else found

    def pieces(self, exchange: Exchange, among: int) -> Pieces:
        """The same for typed tensors."""

        def pieces(request: Request) -> Pieces:
            if not request.queries:
                return Pieces(self.text(self.report.prediction(exchange)))
            return self._pieces(exchange, request, among)

        found = self._unless_refused(exchange, pieces)
        return Pieces(self.text(found.body(kserve=True)), refusal=found) if isinstance(found, Refusal) else found

    def _unless_refused(self, exchange: Exchange, render: Callable[[Request], Rendered]) -> Rendered | Refusal:
        if exchange.refusal is None:
            try:
                assert exchange.request is not None
                return render(exchange.request)
            except Exception as error:
                _log(error)
                exchange.refuse(refusal_of(error))
        assert exchange.refusal is not None
        return exchange.refusal

    def encoded(self, answer: Answer, exchange: Exchange) -> bytes:
        """An answer as JSON, for its place in an envelope."""
        if exchange.refusal is not None:
            return self.json(exchange.refusal.body(kserve=True))
        return answer.body if isinstance(answer.body, bytes) else self.json(answer.body)

    def enveloped(self, body: bytes, exchanges: Sequence[Exchange]) -> Answer:
        """An envelope: 200 where something in it is; else what its first instance is told."""
        if any(exchange.refusal is None for exchange in exchanges):
            return self.ok(body)
        refusal = exchanges[0].refusal
        assert refusal is not None
        return replace(self.refused(refusal), body=body)

    def ok(self, body: bytes) -> Answer:
        return Answer(200, body, OUTPUTS["json"])

    def refused(self, refusal: Refusal, kserve: bool = False) -> Answer:
        """An error; kserve: as KServe's clients expect it."""
        headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        return Answer(refusal.code, self.json(refusal.body(kserve)), OUTPUTS["json"], headers, refusal.type)

    @staticmethod
    def json(content: Any) -> bytes:
        """Valid JSON whatever the model gave: numbers that are not finite become null."""
        return json.dumps(_finite(content), ensure_ascii=True, allow_nan=False).encode("ascii")

    def text(self, content: Any) -> str:
        return self.json(content).decode("ascii")

    def _within_limit(self, answer: Answer) -> Answer:
        """TorchServe kills the worker over an answer that is larger than its limit."""
        if len(answer.body) > self.limits.max_response_bytes:
            raise Refusal(413, "the answer would be too large; ask for fewer targets or pictures, no overlay, or png")
        return answer

    def _views(self, exchange: Exchange) -> list[View]:
        assert exchange.geometry is not None
        with exchange.stage("render"):
            views = [view(exchange.geometry, attribution) for attribution in exchange.estimates()]
        exchange.empty_maps = sum(each.scale <= 0 for each in views)
        return views

    def _explanation(self, exchange: Exchange, request: Request, among: int) -> Answer:
        views = self._views(exchange)
        if request.output == "npy":
            values = views[0].values if len(views) == 1 else np.stack([each.values for each in views])
            return Answer(200, npy(values), OUTPUTS["npy"], self.report.headers(exchange, views[0]))
        if request.output in PICTURES:

            def pictures(drawings: Sequence[Drawing]) -> list[bytes]:
                return self._pictures(exchange, drawings, request)

            (picture,) = self._fitting(exchange, views, among, True, pictures)
            return Answer(200, picture, PICTURES[request.output], self.report.headers(exchange, views[0]))

        def document(drawings: Sequence[Drawing]) -> list[bytes]:
            with exchange.stage("render"):
                entries = [self.report.entry(exchange, request, each) for each in drawings]
            return [self.json(self.report.document(exchange, request, entries))]

        (body,) = self._fitting(exchange, views, among, request.overlay, document)
        return self.ok(body)

    def _pieces(self, exchange: Exchange, request: Request, among: int) -> Pieces:
        views = self._views(exchange)
        about = self.text(
            self.report.document(exchange, request, [self.report.about(exchange, request, each) for each in views])
        )
        maps = [each.values for each in views]
        pictured = request if request.output in PICTURES else replace(request, output="png")
        if pictured is not request and not request.overlay:
            return Pieces(about, maps)

        def encoded(drawings: Sequence[Drawing]) -> list[bytes]:
            return [base64.b64encode(picture) for picture in self._pictures(exchange, drawings, pictured)]

        texts = [picture.decode("ascii") for picture in self._fitting(exchange, views, among, True, encoded)]
        return Pieces(about, pictures=texts) if pictured is request else Pieces(about, maps, overlays=texts)

    def _fitting(
        self,
        exchange: Exchange,
        views: Sequence[View],
        among: int,
        coloured: bool,
        render: Callable[[Sequence[Drawing]], list[bytes]],
    ) -> list[bytes]:
        """What is rendered from drawings, made smaller until all of it fits into its share of an answer.

        coloured: whether it holds photographs, not only maps. The first size is one that could fit at best.
        """
        assert exchange.geometry is not None and exchange.photograph is not None
        room = self.limits.max_response_bytes // among - _ENVELOPE
        pixels = room / len(views) / _BYTES_PER_PIXEL[coloured]
        side = min(max(exchange.photograph.size), max(_SMALLEST_SIDE, math.isqrt(int(max(0, pixels)))))
        while True:
            with exchange.stage("render"):
                drawings = [draw(exchange.photograph, exchange.geometry, each, side) for each in views]
            bodies = render(drawings)
            if sum(map(len, bodies)) <= room or side <= _SMALLEST_SIDE:
                return bodies
            side = max(_SMALLEST_SIDE, side // 2)

    def _pictures(self, exchange: Exchange, drawings: Sequence[Drawing], request: Request) -> list[bytes]:
        with exchange.stage("render"):
            return [self.report.picture(exchange, each, request) for each in drawings]


def _log(error: BaseException) -> None:
    """For what is nobody's fault but ours."""
    if refusal_of(error).code == 500:
        logger.error("heatserve: an answer could not be written: %s", where(error))


def _line(answer: Answer, more: bool | None = None) -> Answer:
    """An answer as a line of a stream."""
    assert isinstance(answer.body, bytes)
    return replace(answer, body=answer.body + b"\n", content_type=MEDIA_TYPES[STREAM], more=more)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
