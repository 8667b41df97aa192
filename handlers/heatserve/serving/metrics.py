"""The metrics that heatserve emits. `metrics.yaml` declares the same ones to TorchServe; a test compares the two."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .errors import where
from .facts import CallFacts, ItemFacts
from .states import STAGES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Declared:
    """One metric.

    kind: counter, gauge or histogram.
    dimensions: names of its own ones. The host adds `COMMON_DIMENSIONS`.
    """

    name: str
    kind: str
    unit: str
    dimensions: tuple[str, ...]
    summary: str


EXPLANATIONS = Declared(
    "heatserve_explanations_total",
    "counter",
    "Count",
    ("Method", "Output", "Status"),
    "explanations answered",
)
STAGE_SECONDS = Declared(
    "heatserve_stage_seconds", "histogram", "Seconds", ("Stage", "Method"), "time of one answer in one stage"
)
UNDER_WAY = Declared("heatserve_explanations_under_way", "gauge", "Count", (), "explanations that take further passes")
GIVEN_UP = Declared("heatserve_given_up_total", "counter", "Count", (), "requests whose client had gone")
OVERDUE = Declared(
    "heatserve_overdue_total", "counter", "Count", ("Method",), "maps that a deadline ended before their samples"
)
SAMPLES = Declared("heatserve_samples_total", "counter", "Count", ("Method",), "noisy copies computed")
BATCHES = Declared(
    "heatserve_batches_total", "counter", "Count", ("Composition",), "batches, by the kind of their rows"
)
BATCH_ROWS = Declared("heatserve_batch_rows_total", "counter", "Count", ("Kind",), "rows, by kind")
EMPTY_MAPS = Declared("heatserve_empty_maps_total", "counter", "Count", ("Method",), "maps without a positive part")
FALLBACKS = Declared("heatserve_fallbacks_total", "counter", "Count", ("Kind",), "forward passes halved for memory")

DECLARED = (
    EXPLANATIONS,
    STAGE_SECONDS,
    SAMPLES,
    OVERDUE,
    UNDER_WAY,
    GIVEN_UP,
    BATCHES,
    BATCH_ROWS,
    EMPTY_MAPS,
    FALLBACKS,
)
COMMON_DIMENSIONS = ("ModelName", "Level")

Emit = Callable[[Declared, float, "list[str]"], None]


class Metrics:
    """Counts the rows that came and the rows that were answered. The host counts predictions itself.

    emit: sends one value with the values of its dimensions. No text of a client is among them.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._fallbacks = 0
        self._under_way = 0

    def count(self, facts: CallFacts) -> None:
        """Counts one call. Never raises: a metric is not worth an answer."""
        try:
            self._count(facts)
        except Exception as error:
            logger.error("heatserve: metrics failed: %s", where(error))

    def _count(self, facts: CallFacts) -> None:
        kinds = [*facts.admitted.values()]
        for kind in sorted(set(kinds)):
            self._emit(BATCH_ROWS, kinds.count(kind), [kind])
        if kinds:
            self._emit(BATCHES, 1, ["mixed" if len(set(kinds)) > 1 else kinds[0]])
        if facts.given_up:
            self._emit(GIVEN_UP, facts.given_up, [])
        if facts.under_way != self._under_way:
            self._emit(UNDER_WAY, facts.under_way, [])
            self._under_way = facts.under_way
        if facts.fallbacks > self._fallbacks:
            self._emit(FALLBACKS, facts.fallbacks - self._fallbacks, ["memory"])
            self._fallbacks = facts.fallbacks
        for item in (item for row in facts.answered.values() for item in row):
            if item.explains:
                self._explanation(item)

    def _explanation(self, item: ItemFacts) -> None:
        request, status = item.request, str(item.refusal.code if item.refusal else 200)
        if request is None or request.describes:
            self._emit(EXPLANATIONS, 1, ["describe" if request else "unknown", "unknown", status])
            return
        method = request.queries[0].method
        self._emit(EXPLANATIONS, 1, [method, request.output, status])
        if item.refusal is not None:
            return
        for stage in STAGES:
            self._emit(STAGE_SECONDS, round(item.seconds[stage], 6), [stage, method])
        smoothed = [found for found in item.attributions if found.query.smoothed]
        if smoothed:
            self._emit(SAMPLES, sum(found.samples_used for found in smoothed), [method])
        overdue = sum(found.samples_used < found.query.count and not found.reached for found in smoothed)
        if overdue:
            self._emit(OVERDUE, overdue, [method])
        if item.empty_maps:
            self._emit(EMPTY_MAPS, item.empty_maps, [method])
