"""The contact sheet of a photograph: the overlay of every method that a network can answer, for the predicted class.

Pictures are made as those of an answer are. A method with many draws ends early, as it does at a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from ..engine import FORWARD, METHODS, Attribution, Explainer, Query, ranking
from ..imaging import Geometry, Photograph, Tile, decode, sheet
from .drawing import draw, view
from .errors import printable
from .options import OPTIONS
from .service import Service

#: The most forward passes for one method. Draws in an order show a part of the picture each: they get more.
_WORK, _WORK_IN_ORDER = 60, 250
#: A map whose smallest value is above this share of the value at full strength shows no place.
_FLAT = 0.8
#: The longest side of the photographs, in pixels.
_SIDE = 1024

#: It is called before each method, with the number of methods that are done, the number of all, and the method's name.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Contact:
    """A contact sheet.

    target, probability: the label of the class that all maps explain, and its probability.
    methods: the names of the methods in it.
    """

    picture: Image.Image
    target: str
    probability: float
    methods: Sequence[str]


@dataclass(frozen=True)
class _Subject:
    """The photograph, and its place in the network's view."""

    photograph: Photograph
    image: Tensor
    geometry: Geometry
    target: int


def contact(service: Service, photograph: bytes, name: str, progress: Progress | None = None) -> Contact:
    """The contact sheet of a photograph.

    photograph: a file's bytes.
    name: of the file, for the heading.

    Raises UnreadableImage or ImageTooLarge.
    """
    settings, explainer, report = service.settings, service.explainer, service.responder.report
    picture = decode(photograph, settings.limits.max_pixels, settings.preprocess.alpha)
    image, geometry = settings.preprocess.tensor(picture, settings.limits.max_resized_pixels)
    image = image.to(explainer.device)
    (scores,), _ = explainer.run(image[None].clone(), [[]])
    probabilities = explainer.probabilities(scores[None])[0].tolist()
    best = ranking(scores)[:3].tolist()
    named = [f"{printable(report.vocabulary.label(index), 40)} ({probabilities[index]:.2f})" for index in best]
    shown = picture.upright(_SIDE)
    subject = _Subject(Photograph(shown.size, shown), image, geometry, best[0])
    methods = explainer.methods()
    lines = [f"likeliest: {', '.join(named)}", *_unseen(geometry, picture.width, picture.height)]
    tiles = [Tile("photograph", lines, shown)]
    for number, method in enumerate(methods):
        if progress is not None:
            progress(number, len(methods), method)
        tiles.append(_tile(explainer, method, subject))
    if progress is not None:
        progress(len(methods), len(methods), "")
    heading = f"{printable(report.model.name, 60)} on {printable(name, 60)}: maps of {named[0]}"
    label = report.vocabulary.label(best[0])
    return Contact(sheet(heading, tiles, _notes(service)), label, probabilities[best[0]], methods)


def _notes(service: Service) -> list[str]:
    """The sentences below the grid."""
    explainer, notes = service.explainer, []
    if service.integrity.weights is None:
        notes.append("THE WEIGHTS ARE THOSE THAT THE ARCHITECTURE MAKES: maps of an untrained network say nothing.")
    if explainer.layers:
        notes.append(f"Methods of a layer: {explainer.layer}, {explainer.layout_of(explainer.layer)}.")
    left_out = [method for method in METHODS if method not in explainer.methods()]
    if left_out:
        notes.append(f"Not for this network: {', '.join(left_out)}. heatserve inspect says why.")
    return [
        *notes,
        "A pass is one forward pass; a backward pass counts as two. Each map is scaled by itself: the strengths of two "
        "maps cannot be compared.",
    ]


def _unseen(geometry: Geometry, width: int, height: int) -> list[str]:
    seen = geometry.seen()
    return [] if seen == (0, 0, width, height) else ["grey parts of the maps were never shown to the network"]


def _tile(explainer: Explainer, method: str, subject: _Subject) -> Tile:
    """The overlay of one method, with its cost and its caveat."""
    query, started = Query(method, target=subject.target), time.monotonic()
    attribution = _attribution(explainer, query, subject.image)
    seconds = time.monotonic() - started
    of = view(subject.geometry, attribution)
    overlay = draw(subject.photograph, subject.geometry, of, _SIDE).overlay(
        OPTIONS["colormap"].default, OPTIONS["opacity"].default
    )
    lines = [_cost(query, attribution, seconds)]
    if of.empty:
        lines.append("EMPTY MAP: it has no part that speaks for this class")
    elif float(of.values.min()) > _FLAT * of.scale:
        lines.append("FLAT MAP: all places are nearly alike")
    if of.signed:
        lines.append("red speaks for the class, blue against it")
    if METHODS[method].caveat:
        lines.append(f"note: {printable(METHODS[method].caveat, 200)}")
    return Tile(method, lines, overlay)


def _attribution(explainer: Explainer, query: Query, image: Tensor) -> Attribution:
    if not query.smoothed:
        return explainer.run(image[None].clone(), [[query]])[1][0][0]
    most = (_WORK if METHODS[query.method].drawn.random else _WORK_IN_ORDER) // query.price
    for smoothing in explainer.smooth(image, query):
        if smoothing.samples >= most and smoothing.presentable:
            break
    return smoothing.estimate()


def _cost(query: Query, attribution: Attribution, seconds: float) -> str:
    passes, took = FORWARD + query.work, f"{seconds:.2f} s here" if seconds < 10 else f"{seconds:.0f} s here"
    if not query.smoothed:
        return f"{_counted(passes, 'pass', 'passes')}, {took}"
    used, error = attribution.samples_used, attribution.relative_error
    margin = "" if error is None or not float(error) < 10 else f", standard error {float(error):.2f}"
    margin += "".join(f", {name.replace('_', ' ')} {value:.2f}" for name, value in attribution.facts.items())
    if used == query.count:
        return f"{_counted(used, 'sample', 'samples')}, {_counted(passes, 'pass', 'passes')}, {took}{margin}"
    return (
        f"ONLY {used} OF {query.count} SAMPLES on this sheet: {FORWARD + query.price * used} of {passes} passes, "
        f"{took}{margin}"
    )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
