"""The rendering of one finished item into its part of an answer, no larger than its share allows."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..imaging import Photograph
from .answers import Answer, TensorParts, json_text, ok
from .drawing import Drawing, draw, view
from .errors import Refusal
from .formats import FORMATS, Content, Format
from .report import Report
from .states import Finished

#: The smallest longer side that a picture is shrunk to.
_SMALLEST_SIDE = 64
#: The largest share of its side that a picture which is too large keeps, and the share of the room that it aims at.
_LARGEST_STEP, _SPARE = 0.75, 0.95
#: Bytes that a pixel takes at best: in grey maps, and in photographs with a map over them.
_MAP_PIXEL, _PHOTOGRAPH_PIXEL = 0.02, 0.5


class Rendering:
    """A finished item while it is rendered.

    photograph: the item's, as the answer shows it.
    room: bytes that its pictures, or its whole document, may take.
    seconds: of the item by stage, with the time that rendering has taken so far.
    """

    def __init__(self, report: Report, finished: Finished, photograph: Photograph, room: int) -> None:
        self.seconds = dict(finished.seconds)
        self._report = report
        self._finished = finished
        self._photograph = photograph
        self._room = room
        with self._clocked():
            self._views = [view(finished.geometry, attribution) for attribution in finished.attributions]

    @property
    def empty_maps(self) -> int:
        """How many maps have no positive part."""
        return sum(each.empty for each in self._views)

    def answer(self) -> Answer:
        """The item as an answer in the format that its request names."""
        form = FORMATS[self._finished.request.output]
        if form.content is Content.DOCUMENT:
            (document,) = self._fitting(self._documents, self._finished.request.overlay)
            return ok(document)
        self._refuse_unless_one(form)
        headers = self._report.headers(self._finished, self._views[0])
        if form.content is Content.ARRAY:
            values = [each.values for each in self._views]
            return Answer(
                200, form.encode(values[0] if len(values) == 1 else np.stack(values)), form.media_type, headers
            )
        (picture,) = self._pictures(form)
        return Answer(200, picture, form.media_type, headers)

    def tensors(self) -> TensorParts:
        """The item for typed tensors: its maps, or pictures of them if the request names a picture format."""
        request = self._finished.request
        entries = [self._report.about(self._finished, each) for each in self._views]
        about = json_text(self._report.document(self._finished, entries, self.seconds))
        form = FORMATS[request.output]
        if form.content is Content.PICTURE:
            return TensorParts(about, pictures=self._texts(form))
        maps = [each.values for each in self._views]
        return TensorParts(about, maps, overlays=self._texts(FORMATS["png"]) if request.overlay else ())

    def _refuse_unless_one(self, form: Format) -> None:
        """Refuses the labels that are present in a form that has no place for none of them, or for several."""
        if len(self._views) != 1 and any(query.least is not None for query in self._finished.request.queries):
            found = f"{len(self._views)} labels are" if self._views else "none is"
            raise Refusal(400, f"output {form.name} needs one label that is present, and {found}; ask for json")

    def _documents(self, drawings: Sequence[Drawing]) -> list[bytes]:
        """The one JSON document of all drawings."""
        with self._clocked():
            entries = [self._report.entry(self._finished, each) for each in drawings]
        return [FORMATS["json"].encode(self._report.document(self._finished, entries, self.seconds))]

    def _texts(self, form: Format) -> list[str]:
        """One overlay for each map, as base64 text."""
        return [picture.decode("ascii") for picture in self._pictures(form, base64.b64encode)]

    def _pictures(self, form: Format, wrap: Callable[[bytes], bytes] = bytes) -> list[bytes]:
        """One overlay for each map. wrap: the encoding around a picture."""
        request, report = self._finished.request, self._report
        texts = [report.picture_text(report.headers(self._finished, each)) for each in self._views]

        def encoded(drawings: Sequence[Drawing]) -> list[bytes]:
            with self._clocked():
                overlays = [each.overlay(request.colormap, request.opacity) for each in drawings]
                return [wrap(form.encode(overlay, text)) for overlay, text in zip(overlays, texts)]

        return self._fitting(encoded, True)

    def _fitting(self, encode: Callable[[Sequence[Drawing]], list[bytes]], photographs: bool) -> list[bytes]:
        """The encoded drawings, made smaller until all of them fit into the room.

        The first size is one that could fit at best. photographs: whether they hold photographs, not maps alone.
        """
        pixels = self._room / max(1, len(self._views)) / (_PHOTOGRAPH_PIXEL if photographs else _MAP_PIXEL)
        side = min(max(self._photograph.size), max(_SMALLEST_SIDE, math.isqrt(int(max(0, pixels)))))
        while True:
            with self._clocked():
                drawings = [draw(self._photograph, self._finished.geometry, each, side) for each in self._views]
            bodies = encode(drawings)
            taken = sum(map(len, bodies))
            if taken <= self._room or side <= _SMALLEST_SIDE:
                return bodies
            # Bytes grow with the square of the side, or a little more slowly.
            fitting = _SPARE * math.sqrt(max(0, self._room) / taken)
            side = max(_SMALLEST_SIDE, int(side * min(_LARGEST_STEP, fitting)))

    @contextmanager
    def _clocked(self) -> Iterator[None]:
        """Adds the wall time of the block to the stage `render`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds["render"] = self.seconds.get("render", 0.0) + time.perf_counter() - started
