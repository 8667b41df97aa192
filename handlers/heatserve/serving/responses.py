"""From a finished exchange to what goes out: status, type, headers, body."""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ..engine import Explainer
from ..imaging import npy, png
from .archive import ModelInfo
from .errors import Refusal, printable, refusal_of, where
from .exchange import STAGES, Exchange
from .options import MEDIA_TYPES, OUTPUTS, STREAM, Vocabulary
from .rendering import Drawing, View, boxes, draw, view
from .requests import Request
from .settings import Limits

logger = logging.getLogger(__name__)

_SMALLEST_SIDE = 64


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
class Writer:
    """Writes the answers of one archive."""

    explainer: Explainer
    vocabulary: Vocabulary
    model: ModelInfo
    limits: Limits
    description: Mapping[str, Any]

    def write(self, exchange: Exchange) -> Answer:
        """Never raises: what cannot be rendered is answered as an error."""
        try:
            answer = self._answer(exchange)
        except Exception as error:
            if refusal_of(error).code == 500 and error is not exchange.refusal:
                logger.error("heatserve: an answer could not be written: %s", where(error))
            exchange.refusal = refusal_of(error)
            answer = _refused(exchange.refusal)
        if exchange.lines:
            return _line(answer, more=False)
        streamed = exchange.refusal is None and exchange.request is not None and exchange.request.stream
        return _line(answer) if streamed else answer

    def line(self, exchange: Exchange) -> Answer:
        """The next line of a stream: the maps as they stand. A fault makes it the last one."""
        try:
            assert exchange.request is not None
            answer = self._explanation(exchange, exchange.request)
        except Exception as error:
            logger.error("heatserve: a line could not be written: %s", where(error))
            exchange.refusal = refusal_of(error)
            return self.write(exchange)
        exchange.lines = exchange.improvements
        return _line(answer, more=True)

    def _answer(self, exchange: Exchange) -> Answer:
        if exchange.refusal is not None:
            raise exchange.refusal
        assert exchange.request is not None
        if exchange.request.describes:
            return Answer(200, _json(self.description), OUTPUTS["json"])
        if not exchange.request.queries:
            return self._prediction(exchange)
        return self._explanation(exchange, exchange.request)

    def _prediction(self, exchange: Exchange) -> Answer:
        """The stock image_classifier's answer: {label: probability} of the five (or top_k) likeliest classes."""
        assert exchange.request is not None
        count = exchange.request.top_k or min(5, self.vocabulary.classes)
        return Answer(200, {entry["label"]: entry["probability"] for entry in self._ranking(exchange, count)})

    def _ranking(self, exchange: Exchange, count: int) -> list[dict[str, Any]]:
        assert exchange.probabilities is not None
        top = exchange.probabilities.topk(count)
        return [
            {"index": index, "label": self.vocabulary.label(index), "probability": probability}
            for index, probability in zip(top.indices.tolist(), top.values.tolist())
        ]

    def _explanation(self, exchange: Exchange, request: Request) -> Answer:
        assert exchange.geometry is not None and exchange.photograph is not None
        with exchange.stage("render"):
            views = [view(exchange.geometry, attribution) for attribution in exchange.estimates()]
        exchange.empty_maps = sum(each.scale <= 0 for each in views)
        if request.output == "npy":
            values = views[0].values if len(views) == 1 else np.stack([each.values for each in views])
            return self._within_limit(Answer(200, npy(values), OUTPUTS["npy"], self._headers(exchange, views)))
        side = max(exchange.photograph.size)
        while True:
            with exchange.stage("render"):
                drawings = [draw(exchange.photograph, exchange.geometry, each, side) for each in views]
            if request.output == "png":
                with exchange.stage("render"):
                    body = png(drawings[0].overlay(request.colormap, request.opacity))
                answer = Answer(200, body, OUTPUTS["png"], self._headers(exchange, views))
            else:
                answer = Answer(200, self._document(exchange, request, views, drawings), OUTPUTS["json"])
            if len(answer.body) <= self.limits.max_response_bytes or side <= _SMALLEST_SIDE:
                return self._within_limit(answer)
            side = max(_SMALLEST_SIDE, side // 2)

    def _document(self, exchange: Exchange, request: Request, views: list[View], drawings: list[Drawing]) -> bytes:
        assert exchange.geometry is not None and exchange.photograph is not None
        with exchange.stage("render"):
            explanations = [self._entry(exchange, request, each, drawing) for each, drawing in zip(views, drawings)]
        content = {
            "predictions": self._ranking(exchange, request.top_k or 5),
            "explanations": explanations,
            "image": {
                "width": exchange.size[0],
                "height": exchange.size[1],
                "seen": list(exchange.geometry.seen()),
            },
            "model": asdict(self.model),
            "timing_ms": {stage: round(1000 * exchange.seconds[stage], 2) for stage in STAGES},
        }
        return _json(content)

    def _entry(self, exchange: Exchange, request: Request, of: View, drawing: Drawing) -> dict[str, Any]:
        assert exchange.geometry is not None
        query = of.attribution.query
        entry: dict[str, Any] = {
            "method": query.method,
            "target": self._target(exchange, of),
            "heatmap": _image(drawing.heatmap(), scale=of.scale),
            "parameters": {
                "layer": self.explainer.layer_of(query),
                "samples": query.samples,
                "noise_level": query.noise_level if query.smoothed else None,
                "seed": query.seed if query.smoothed else None,
                "contrast": query.contrast,
            },
            "quality": {
                "empty": of.scale <= 0,
                "samples_used": of.attribution.samples_used,
                "standard_error": _standard_error(of),
                # Nobody asked for an error that would be small enough: what is known is what is missing.
                "converged": None if of.attribution.samples_used == query.count else False,
            },
        }
        if request.overlay:
            entry["overlay"] = _image(drawing.overlay(request.colormap, request.opacity))
        if request.boxes:
            entry["boxes"] = boxes(exchange.geometry, of, request.box_threshold)
        return entry

    def _target(self, exchange: Exchange, of: View) -> dict[str, Any]:
        assert exchange.probabilities is not None and exchange.scores is not None
        index = of.attribution.query.target
        assert index is not None
        return {
            "index": index,
            "label": self.vocabulary.label(index),
            "probability": float(exchange.probabilities[index]),
            "score": float(exchange.scores[index]),
        }

    def _headers(self, exchange: Exchange, views: list[View]) -> dict[str, str]:
        """Prediction and explanation for answers that are not JSON; labels in printable ASCII."""
        best = self._ranking(exchange, 1)[0]
        query, target = views[0].attribution.query, self._target(exchange, views[0])
        headers = {
            "X-Prediction-Index": str(best["index"]),
            "X-Prediction-Label": printable(best["label"], 100),
            "X-Prediction-Probability": f"{best['probability']:.6g}",
            "X-Explanation-Method": query.method,
            "X-Explanation-Target-Index": str(target["index"]),
            "X-Explanation-Target-Label": printable(target["label"], 100),
            "X-Explanation-Scale": f"{views[0].scale:.6g}",
        }
        error = _standard_error(views[0])
        if query.smoothed:
            headers["X-Explanation-Samples"] = str(views[0].attribution.samples_used)
            headers["X-Explanation-Seed"] = str(query.seed)
        if error is not None and math.isfinite(error):
            headers["X-Explanation-Standard-Error"] = f"{error:.6g}"
        return headers

    def _within_limit(self, answer: Answer) -> Answer:
        """TorchServe kills the worker over an answer that is larger than its limit."""
        if len(answer.body) > self.limits.max_response_bytes:
            raise Refusal(413, "the answer would be too large; ask for fewer targets, no overlay, or output png")
        return answer


def _standard_error(of: View) -> float | None:
    error = of.attribution.relative_error
    return None if error is None else float(error)


def _image(image: Image.Image, **more: float) -> dict[str, Any]:
    data = base64.b64encode(png(image)).decode("ascii")
    return {"format": "png", "width": image.width, "height": image.height, **more, "data": data}


def _refused(refusal: Refusal) -> Answer:
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    return Answer(refusal.code, _json(refusal.body()), OUTPUTS["json"], headers, refusal.type)


def _line(answer: Answer, more: bool | None = None) -> Answer:
    """An answer as a line of a stream."""
    assert isinstance(answer.body, bytes)
    return replace(answer, body=answer.body + b"\n", content_type=MEDIA_TYPES[STREAM], more=more)


def _json(content: Any) -> bytes:
    """Valid JSON whatever the model gave: numbers that are not finite become null."""
    return json.dumps(_finite(content), ensure_ascii=True, allow_nan=False).encode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
