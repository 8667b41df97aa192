"""The answer to an explanation, in Python's terms."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Prediction:
    """One class of the ranking.

    probability: None for a regression.
    value: of a regression; None for a classifier.
    """

    index: int
    label: str
    probability: float | None = None
    value: float | None = None

    @property
    def number(self) -> float:
        """The probability, or the value of a regression; NaN for a number of the model that is not finite."""
        number = self.value if self.probability is None else self.probability
        return float("nan") if number is None else number

    @staticmethod
    def of(answer: Mapping[str, Any]) -> Prediction:
        """The prediction in a member of the answer's `predictions`, or in a target."""
        kind = "value" if "value" in answer else "probability"
        return Prediction(answer["index"], answer["label"], **{kind: answer[kind]})


@dataclass(frozen=True)
class Box:
    """The box around the map's largest region, in pixels of the upright photograph. x1 and y1 are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int
    score: float


@dataclass(frozen=True)
class Explanation:
    """One map and its quality.

    scale: the attribution at grey 255.
    signed: whether the heatmap shows both signs: grey 128 is zero, 255 is `scale` and 1 is -`scale`.
    standard_error: the Monte-Carlo error of a smoothed map, relative to the size (L2) of the true map. It is None for a
        map that was not smoothed, and for one that is no larger than its noise.
    converged: whether the standard error that was asked for is reached. If none was asked for, it is False after a
        deadline ended the samples early, else None.
    empty: whether the map is zero everywhere.
    completeness_error: of integrated gradients, how far the sum of the attribution is from the difference between the
        scores of the picture and of the baseline, as a share of that difference. It is None for other methods, and
        where both scores are the same.
    share_done: the share of the method's windows or channels that the map was made of; None for a method without them.
    answer: the JSON of this explanation.
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
    signed: bool = False
    completeness_error: float | None = None
    share_done: float | None = None

    @property
    def heatmap(self) -> Image.Image:
        """The map on the upright photograph, 8-bit grey."""
        return _picture(self.answer["heatmap"]["data"])

    @property
    def map(self) -> NDArray[numpy.float32]:
        """The map on the upright photograph in attribution units, float32 (height, width).

        It is as precise as 8 bits are. `Client.raw` gives the map on the model's view in float32.
        """
        import numpy

        levels = numpy.asarray(self.heatmap, numpy.float32)
        if self.signed:
            return (levels - 128) * numpy.float32(self.scale / 127)
        return levels * numpy.float32(self.scale / 255)

    @property
    def overlay(self) -> Image.Image:
        """The photograph with the map laid over it. Raises ValueError if the request had `overlay=False`."""
        if "overlay" not in self.answer:
            raise ValueError("the answer holds no overlay; ask with overlay=True")
        return _picture(self.answer["overlay"]["data"])

    @staticmethod
    def of(answer: Mapping[str, Any]) -> Explanation:
        """The explanation in a member of the answer's `explanations`."""
        target, quality = answer["target"], answer["quality"]
        return Explanation(
            answer["method"],
            Prediction.of(target),
            target["score"],
            answer["heatmap"]["scale"],
            quality["samples_used"],
            quality["standard_error"],
            quality["converged"],
            quality["empty"],
            tuple(Box(**box) for box in answer.get("boxes", ())),
            answer,
            answer.get("signed", False),
            quality.get("completeness_error"),
            quality.get("share_done"),
        )


@dataclass(frozen=True)
class Result:
    """The answer to `Client.explain`: the ranking and a map for each target.

    size: (width, height) of the upright photograph.
    seen: (x0, y0, x1, y1), the part of the upright photograph that the model's crop showed to it.
    model: the model's name, version and hashes.
    timing_ms: the milliseconds of each stage on the server.
    answer: the whole JSON answer.
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
        """The first explanation. It is the only one unless several targets were asked for.

        Raises ValueError where `target="present"` found no label.
        """
        if not self.explanations:
            raise ValueError("no label is above the threshold, so the answer holds no map")
        return self.explanations[0]

    @property
    def map(self) -> NDArray[numpy.float32]:
        """The map of the first explanation."""
        return self.explanation.map

    @property
    def overlay(self) -> Image.Image:
        """The overlay of the first explanation."""
        return self.explanation.overlay

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the first explanation."""
        return self.explanation.boxes

    @staticmethod
    def of(answer: Mapping[str, Any]) -> Result:
        """The result in the JSON of an answer."""
        x0, y0, x1, y1 = answer["image"]["seen"]
        return Result(
            tuple(Prediction.of(entry) for entry in answer["predictions"]),
            tuple(Explanation.of(entry) for entry in answer["explanations"]),
            (answer["image"]["width"], answer["image"]["height"]),
            (x0, y0, x1, y1),
            answer["model"],
            answer["timing_ms"],
            answer,
        )


def _picture(data: str) -> Image.Image:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(data)))
