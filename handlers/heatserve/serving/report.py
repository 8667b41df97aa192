"""The JSON values, headers and texts of an answer: on the prediction, on each map, and on the archive."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .. import __version__ as VERSION
from ..engine import METHODS, Explainer, Query, nearest, ranking
from . import wording
from .drawing import Drawing, View, boxes
from .errors import printable
from .formats import FORMATS
from .model_info import ModelInfo
from .options import OPTIONS
from .states import STAGES, Finished
from .vocabulary import Vocabulary

_PNG = FORMATS["png"]
_TOP_K: int = OPTIONS["top_k"].default


@dataclass(frozen=True)
class Report:
    """The texts of one archive's answers; each method takes the finished item that it speaks of."""

    explainer: Explainer
    vocabulary: Vocabulary
    model: ModelInfo

    def prediction(self, finished: Finished) -> dict[str, Any]:
        """The stock image_classifier's answer: {label: probability} of the five (or top_k) likeliest classes.

        A regression's is {label: value}, the largest values first.
        Classes of the same softmax come in the stock handler's order, all others in that of their scores.
        """
        count = finished.request.top_k or min(_TOP_K, self.vocabulary.classes)
        if self.model.activation != "softmax":
            return {entry["label"]: entry[self._number] for entry in self._likeliest(finished, count)}
        top = finished.probabilities.topk(count).indices
        return {entry["label"]: entry[self._number] for entry in self._entries(finished, top)}

    def document(
        self, finished: Finished, explanations: Sequence[Mapping[str, Any]], seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        """The whole JSON answer. explanations: one entry for each map. seconds: by stage."""
        return {
            "predictions": self._likeliest(finished, finished.request.top_k or _TOP_K),
            "explanations": explanations,
            "image": {
                "width": finished.size[0],
                "height": finished.size[1],
                "seen": list(finished.geometry.seen()),
            },
            "model": asdict(self.model),
            "timing_ms": {stage: round(1000 * seconds.get(stage, 0.0), 2) for stage in STAGES},
        }

    def entry(self, finished: Finished, of: Drawing) -> dict[str, Any]:
        """A map's entry in the document, with its pictures."""
        request = finished.request
        entry = self.about(finished, of.view)
        entry["heatmap"] = {**_image(of.heat), "scale": entry.pop("scale")}
        if request.overlay:
            entry["overlay"] = _image(of.overlay(request.colormap, request.opacity))
        return entry

    def about(self, finished: Finished, of: View) -> dict[str, Any]:
        """A map's entry without its pictures."""
        query = of.attribution.query
        layer, target = self.explainer.layer_of(query), self._target(finished, of)
        entry: dict[str, Any] = {
            "method": query.method,
            "target": target,
            "scale": of.scale,
            **({"signed": True} if of.signed else {}),
            **({"approximates": METHODS[query.method].approximates} if METHODS[query.method].approximates else {}),
            "parameters": {
                "layer": layer,
                **_layout(self.explainer, layer),
                "samples": query.samples,
                "standard_error": query.standard_error,
                "resolution": query.resolution if query.smoothed and METHODS[query.method].takes_blocks else None,
                "noise_level": query.noise_level if "noise_level" in query.parameters else None,
                **_seeded(query, self.explainer.device),
                **_contrast(query, target["index"], finished.scores),
                "precision": query.precision(self.explainer.precision)
                if query.smoothed
                else self.explainer.prediction_precision,
            },
            "quality": {
                "empty": of.empty,
                "samples_used": of.attribution.samples_used,
                "standard_error": _standard_error(of),
                "converged": _converged(of),
                **of.attribution.facts,
            },
        }
        if finished.request.boxes:
            entry["boxes"] = boxes(finished.geometry, of, finished.request.box_threshold)
        return entry

    def headers(self, finished: Finished, of: View) -> dict[str, str]:
        """Prediction and map as headers of an answer that is not JSON; labels in printable ASCII."""
        (best,) = self._likeliest(finished, 1)
        query, target = of.attribution.query, self._target(finished, of)
        headers = {
            "X-Prediction-Index": str(best["index"]),
            "X-Prediction-Label": printable(best["label"], 100),
            wording.header(self.model.activation): f"{best[self._number]:.6g}",
            "X-Prediction-Activation": self.model.activation,
            "X-Explanation-Method": query.method,
            "X-Explanation-Target-Index": str(target["index"]),
            "X-Explanation-Target-Label": printable(target["label"], 100),
            "X-Explanation-Scale": f"{of.scale:.6g}",
        }
        error = _standard_error(of)
        if METHODS[query.method].approximates:
            headers["X-Explanation-Approximates"] = METHODS[query.method].approximates
        if query.smoothed:
            headers["X-Explanation-Samples"] = str(of.attribution.samples_used)
        if query.resolution > 1:
            headers["X-Explanation-Resolution"] = str(query.resolution)
        if "seed" in query.parameters:
            headers["X-Explanation-Seed"] = str(query.seed)
        if error is not None and math.isfinite(error):
            headers["X-Explanation-Standard-Error"] = f"{error:.6g}"
        for name, value in of.attribution.facts.items():
            if math.isfinite(value):
                headers[f"X-Explanation-{name.replace('_', '-').title()}"] = f"{value:.6g}"
        return headers

    def picture_text(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The text inside a picture by name: its headers, the model and this software."""
        about = {name[2:].replace("-", " "): value for name, value in headers.items()}
        model = f"{self.model.name} {self.model.version}, weights {self.model.weights_sha256}"
        return {**about, "Model": printable(model, 200), "Software": f"heatserve {VERSION}"}

    @property
    def _number(self) -> str:
        return wording.number(self.model.activation)

    def _likeliest(self, finished: Finished, count: int) -> list[dict[str, Any]]:
        """The likeliest classes, ranked by their scores as targets are."""
        return self._entries(finished, ranking(finished.scores)[:count])

    def _entries(self, finished: Finished, classes: Tensor) -> list[dict[str, Any]]:
        return [
            {"index": index, "label": self.vocabulary.label(index), self._number: number}
            for index, number in zip(classes.tolist(), finished.probabilities[classes].tolist())
        ]

    def _target(self, finished: Finished, of: View) -> dict[str, Any]:
        """The class that a map explains."""
        index = of.attribution.query.target
        assert index is not None  # an attribution's query has its target fixed
        return {
            "index": index,
            "label": self.vocabulary.label(index),
            self._number: float(finished.probabilities[index]),
            "score": float(finished.scores[index]),
        }


def _seeded(query: Query, device: torch.device) -> dict[str, Any]:
    """The seed of random draws with the generator that it seeds, which differs between devices."""
    if "seed" not in query.parameters:
        return {"seed": None}
    return {"seed": query.seed, "generator": query.generator(device)}


def _contrast(query: Query, target: int, scores: Tensor) -> dict[str, Any]:
    """The classes that the target is compared with; nearest ones by their indices too."""
    if query.nearest is None:
        return {"contrast": query.contrast}
    classes = nearest(scores[None], torch.tensor([target]), query.nearest)[0].tolist()
    return {"contrast": f"nearest{query.nearest}", "nearest": classes}


def _layout(explainer: Explainer, layer: str | None) -> dict[str, Any]:
    """The layouts of the layers that a map comes from, joined as their names are; null for a map without a layer."""
    if layer is None:
        return {"layout": None, "layout_proved": None}
    layouts = [explainer.layout_of(name) for name in layer.split("+")]
    return {"layout": "+".join(map(str, layouts)), "layout_proved": all(layout.proved for layout in layouts)}


def _standard_error(of: View) -> float | None:
    error = of.attribution.relative_error
    return None if error is None else float(error)


def _converged(of: View) -> bool | None:
    """Whether the map's standard error is as small as the query asked for.

    For a query that asked for none it is False if a deadline ended the map before its samples, else None.
    """
    query = of.attribution.query
    if query.standard_error is not None:
        return of.attribution.reached
    return None if of.attribution.samples_used == query.count else False


def _image(image: Image.Image | NDArray[np.uint8]) -> dict[str, Any]:
    """A picture, or grey levels [height, width], inside a JSON document."""
    data = base64.b64encode(_PNG.encode(image)).decode("ascii")
    width, height = image.size if isinstance(image, Image.Image) else image.shape[::-1]
    return {"format": _PNG.name, "width": width, "height": height, "data": data}
