"""What an answer says: of the prediction, of each map, and of the archive that both come from."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from .. import __version__ as VERSION
from ..engine import Explainer, ranking
from ..imaging import jpeg, png, webp
from .archive import ModelInfo
from .errors import printable
from .exchange import STAGES, Exchange
from .options import Vocabulary
from .rendering import Drawing, View, boxes
from .requests import Request


@dataclass(frozen=True)
class Report:
    """Of one archive: JSON values, headers and pictures, of whatever exchange it is asked about."""

    explainer: Explainer
    vocabulary: Vocabulary
    model: ModelInfo

    def prediction(self, exchange: Exchange) -> dict[str, Any]:
        """The stock image_classifier's answer: {label: probability} of the five (or top_k) likeliest classes."""
        assert exchange.request is not None
        count = exchange.request.top_k or min(5, self.vocabulary.classes)
        return {entry["label"]: entry["probability"] for entry in self._ranking(exchange, count)}

    def _ranking(self, exchange: Exchange, count: int) -> list[dict[str, Any]]:
        assert exchange.probabilities is not None and exchange.scores is not None
        # A plain prediction is the stock handler's, to the order of classes that have the same probability.
        top = ranking(exchange.scores)[:count] if exchange.explains else exchange.probabilities.topk(count).indices
        return [
            {"index": index, "label": self.vocabulary.label(index), "probability": probability}
            for index, probability in zip(top.tolist(), exchange.probabilities[top].tolist())
        ]

    def picture(self, exchange: Exchange, of: Drawing, request: Request) -> bytes:
        """The overlay; as a PNG it says in its text chunks what it shows."""
        overlay = of.overlay(request.colormap, request.opacity)
        if request.output == "webp":
            return webp(overlay)
        if request.output == "jpeg":
            return jpeg(overlay)
        about = {name[2:].replace("-", " "): value for name, value in self.headers(exchange, of.view).items()}
        model = f"{self.model.name} {self.model.version}, weights {self.model.weights_sha256}"
        return png(overlay, {**about, "Model": printable(model, 200), "Software": f"heatserve {VERSION}"})

    def document(self, exchange: Exchange, request: Request, explanations: Sequence[Any]) -> dict[str, Any]:
        assert exchange.geometry is not None
        return {
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

    def entry(self, exchange: Exchange, request: Request, of: Drawing) -> dict[str, Any]:
        entry = self.about(exchange, request, of.view)
        entry["heatmap"] = {**_image(of.heatmap()), "scale": entry.pop("scale")}
        if request.overlay:
            entry["overlay"] = _image(of.overlay(request.colormap, request.opacity))
        return entry

    def about(self, exchange: Exchange, request: Request, of: View) -> dict[str, Any]:
        """A map's entry without its pictures."""
        assert exchange.geometry is not None
        query = of.attribution.query
        entry: dict[str, Any] = {
            "method": query.method,
            "target": self._target(exchange, of),
            "scale": of.scale,
            "parameters": {
                "layer": self.explainer.layer_of(query),
                "samples": query.samples,
                "standard_error": query.standard_error,
                "noise_level": query.noise_level if query.smoothed else None,
                "seed": query.seed if query.smoothed else None,
                "contrast": query.contrast,
                "precision": self.explainer.precision if query.smoothed else self.explainer.prediction_precision,
            },
            "quality": {
                "empty": of.scale <= 0,
                "samples_used": of.attribution.samples_used,
                "standard_error": _standard_error(of),
                "converged": _converged(of),
            },
        }
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

    def headers(self, exchange: Exchange, of: View) -> dict[str, str]:
        """Prediction and explanation for answers that are not JSON; labels in printable ASCII."""
        best = self._ranking(exchange, 1)[0]
        query, target = of.attribution.query, self._target(exchange, of)
        headers = {
            "X-Prediction-Index": str(best["index"]),
            "X-Prediction-Label": printable(best["label"], 100),
            "X-Prediction-Probability": f"{best['probability']:.6g}",
            "X-Explanation-Method": query.method,
            "X-Explanation-Target-Index": str(target["index"]),
            "X-Explanation-Target-Label": printable(target["label"], 100),
            "X-Explanation-Scale": f"{of.scale:.6g}",
        }
        error = _standard_error(of)
        if query.smoothed:
            headers["X-Explanation-Samples"] = str(of.attribution.samples_used)
            headers["X-Explanation-Seed"] = str(query.seed)
        if error is not None and math.isfinite(error):
            headers["X-Explanation-Standard-Error"] = f"{error:.6g}"
        return headers


def _standard_error(of: View) -> float | None:
    error = of.attribution.relative_error
    return None if error is None else float(error)


def _converged(of: View) -> bool | None:
    """Whether the standard error is as small as was asked for. Where nobody asked, what is known is what a deadline
    cut off."""
    query = of.attribution.query
    if query.standard_error is not None:
        return of.attribution.reached
    return None if of.attribution.samples_used == query.count else False


def _image(image: Image.Image) -> dict[str, Any]:
    return {"format": "png", "width": image.width, "height": image.height, "data": _base64(png(image))}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
