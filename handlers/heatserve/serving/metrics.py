"""Every metric that heatserve emits. `metrics.yaml` declares the same ones to the server; a test compares the two."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import where
from .exchange import STAGES, Exchange, Visit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Declared:
    """kind: counter, gauge or histogram, as TorchServe names them. dimensions: of ours, before ModelName and Level."""

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
BATCHES = Declared("heatserve_batches_total", "counter", "Count", ("Composition",), "batches, by what was in them")
BATCH_ROWS = Declared("heatserve_batch_rows_total", "counter", "Count", ("Kind",), "rows, by what they asked for")
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


@dataclass(frozen=True)
class Seen:
    """One call of the handler: what it admitted and answered, how many requests nobody waited for any more, how many
    explanations take further passes, and how many forward passes were halved since the start."""

    admitted: Sequence[Visit]
    answered: Sequence[Visit]
    given_up: int
    under_way: int
    fallbacks: int


class Metrics:
    """Counts what was answered. `emit` sends one value with its dimension values; no text of a client is among them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._fallbacks = 0
        self._under_way = 0

    def seen(self, seen: Seen) -> None:
        """One call of the handler: what came, what was answered. TorchServe counts the predictions.

        Never raises: a metric is not worth an answer.
        """
        try:
            self._seen(seen)
        except Exception as error:
            logger.error("heatserve: metrics failed: %s", where(error))

    def _seen(self, seen: Seen) -> None:
        kinds = [_kind(visit) for visit in seen.admitted]
        for kind in sorted(set(kinds)):
            self._emit(BATCH_ROWS, kinds.count(kind), [kind])
        if kinds:
            self._emit(BATCHES, 1, ["mixed" if len(set(kinds)) > 1 else kinds[0]])
        if seen.given_up:
            self._emit(GIVEN_UP, seen.given_up, [])
        if seen.under_way != self._under_way:
            self._emit(UNDER_WAY, seen.under_way, [])
            self._under_way = seen.under_way
        if seen.fallbacks > self._fallbacks:
            self._emit(FALLBACKS, seen.fallbacks - self._fallbacks, ["memory"])
            self._fallbacks = seen.fallbacks
        for exchange in (exchange for visit in seen.answered for exchange in visit.exchanges):
            if exchange.explains:
                self._explanation(exchange)

    def _explanation(self, exchange: Exchange) -> None:
        request, status = exchange.request, str(exchange.status)
        if request is None or request.describes:
            self._emit(EXPLANATIONS, 1, ["describe" if request else "unknown", "unknown", status])
            return
        method = request.queries[0].method
        self._emit(EXPLANATIONS, 1, [method, request.output, status])
        if exchange.refusal is not None:
            return
        for stage in STAGES:
            self._emit(STAGE_SECONDS, round(exchange.seconds[stage], 6), [stage, method])
        smoothed = [found for found in exchange.attributions if found is not None and found.query.smoothed]
        if smoothed:
            self._emit(SAMPLES, sum(found.samples_used for found in smoothed), [method])
        overdue = sum(found.samples_used < found.query.count and not found.reached for found in smoothed)
        if overdue:
            self._emit(OVERDUE, overdue, [method])
        if exchange.empty_maps:
            self._emit(EMPTY_MAPS, exchange.empty_maps, [method])


def _kind(visit: Visit) -> str:
    if all(exchange.request is None for exchange in visit.exchanges):
        return "refused"
    return "explanation" if visit.door.explains else "prediction"


def emitter(metrics: Any, kinds: Callable[[str], Any], model_name: str) -> Emit:
    """Sends to TorchServe's metrics object. A metric that its configuration does not declare is declared here, so
    that an operator's own metrics file cannot break an answer (the server then drops it)."""
    found: dict[str, Any] = {}

    def lookup(declared: Declared) -> Any:
        try:
            return metrics.get_metric(declared.name, kinds(declared.kind))
        except Exception:
            return metrics.add_metric_to_cache(
                metric_name=declared.name,
                unit=declared.unit,
                dimension_names=[*declared.dimensions, *COMMON_DIMENSIONS],
                metric_type=kinds(declared.kind),
            )

    def emit(declared: Declared, value: float, dimensions: list[str]) -> None:
        if declared.name not in found:
            found[declared.name] = lookup(declared)
        found[declared.name].add_or_update(value, [*dimensions, model_name, "Model"])

    return emit
