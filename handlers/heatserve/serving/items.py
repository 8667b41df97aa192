"""The items of a row and their states: one item for each picture that a row brings.

An item is admitted, decoded, perhaps under way for many passes, and ends in one of three outcomes: it is finished,
refused, or the question was what there is to ask for. Each state is a frozen value of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from PIL import Image
from torch import Tensor

from ..engine import Attribution, Smoothing
from ..imaging import Geometry
from .errors import Refusal
from .requests import Request

STAGES = ("decode", "forward", "explain", "render")
#: Shares of the samples after which a stream sends a line, before the last one.
IMPROVEMENTS = (0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Admitted:
    """An item whose request is read and bounded, and whose picture is not decoded yet.

    size: (width, height) that the picture's header promises.
    cost_ms: of decoding, as the header promises.
    costly: whether decoding it would hold up the other rows.
    """

    request: Request
    size: tuple[int, int] = (0, 0)
    cost_ms: float = 0.0
    costly: bool = False


@dataclass(frozen=True)
class Decoded:
    """An item that waits for its first forward pass.

    image: (3, H, W) on the model's device.
    size: (width, height) of the picture that was sent.
    photograph: upright, no larger than an answer shows it; None for a prediction.
    """

    request: Request
    image: Tensor
    geometry: Geometry
    size: tuple[int, int]
    photograph: Image.Image | None
    costly: bool


@dataclass(frozen=True)
class Job:
    """A long explanation, and which of its item's maps it is."""

    index: int
    smoothing: Smoothing


@dataclass(frozen=True)
class UnderWay:
    """An item that has its prediction, and waits for further passes.

    probabilities, scores: (classes) on the host.
    attributions: one for each query; None while its job is not done.
    """

    decoded: Decoded
    probabilities: Tensor
    scores: Tensor
    attributions: tuple[Attribution | None, ...]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Finished:
    """An item with all that its answer says.

    probabilities, scores: (classes) on the host.
    attributions: one for each query.
    seconds: by stage.
    """

    request: Request
    size: tuple[int, int]
    geometry: Geometry
    photograph: Image.Image | None
    probabilities: Tensor
    scores: Tensor
    attributions: tuple[Attribution, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """An item that gets a refusal for an answer. request: None where it could not be read."""

    refusal: Refusal
    request: Request | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """An item that asks what there is to ask for."""

    request: Request
    seconds: Mapping[str, float] = field(default_factory=dict)


Outcome = Union[Finished, Refused, Described]
State = Union[Admitted, Decoded, UnderWay, Finished, Refused, Described]
