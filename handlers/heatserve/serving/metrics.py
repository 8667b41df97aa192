"""Every metric that heatserve emits. `metrics.yaml` declares the same ones to the server; a test compares the two."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import where
from .exchange import STAGES, Exchange
from .responses import Answer

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
SAMPLES = Declared("heatserve_samples_total", "counter", "Count", ("Method",), "noisy copies computed")
BATCHES = Declared("heatserve_batches_total", "counter", "Count", ("Composition",), "batches, by what was in them")
BATCH_ROWS = Declared("heatserve_batch_rows_total", "counter", "Count", ("Kind",), "rows, by what they asked for")
EMPTY_MAPS = Declared("heatserve_empty_maps_total", "counter", "Count", ("Method",), "maps without a positive part")
FALLBACKS = Declared("heatserve_fallbacks_total", "counter", "Count", ("Kind",), "forward passes halved for memory")

DECLARED = (EXPLANATIONS, STAGE_SECONDS, SAMPLES, BATCHES, BATCH_ROWS, EMPTY_MAPS, FALLBACKS)
COMMON_DIMENSIONS = ("ModelName", "Level")

Emit = Callable[[Declared, float, "list[str]"], None]


class Metrics:
    """Counts what was answered. `emit` sends one value with its dimension values; no text of a client is among them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._fallbacks = 0

    def batch(self, exchanges: list[Exchange], answers: list[Answer], fallbacks: int) -> None:
        """One batch as it left: what it was made of, and each explanation in it. TorchServe counts the predictions.

        Never raises: a metric is not worth an answer.
        """
        try:
            self._batch(exchanges, answers, fallbacks)
        except Exception as error:
            logger.error("heatserve: metrics failed: %s", where(error))

    def _batch(self, exchanges: list[Exchange], answers: list[Answer], fallbacks: int) -> None:
        kinds = [_kind(exchange) for exchange in exchanges]
        for kind in sorted(set(kinds)):
            self._emit(BATCH_ROWS, kinds.count(kind), [kind])
        self._emit(BATCHES, 1, ["mixed" if len(set(kinds)) > 1 else kinds[0]])
        if fallbacks > self._fallbacks:
            self._emit(FALLBACKS, fallbacks - self._fallbacks, ["memory"])
            self._fallbacks = fallbacks
        for exchange, answer in zip(exchanges, answers):
            if exchange.explains:
                self._explanation(exchange, answer)

    def _explanation(self, exchange: Exchange, answer: Answer) -> None:
        request = exchange.request
        if request is None:
            self._emit(EXPLANATIONS, 1, ["unknown", "unknown", str(answer.status)])
            return
        method = request.queries[0].method
        self._emit(EXPLANATIONS, 1, [method, request.output, str(answer.status)])
        if answer.status != 200:
            return
        for stage in STAGES:
            self._emit(STAGE_SECONDS, round(exchange.seconds[stage], 6), [stage, method])
        samples = sum(query.count for query in request.queries if query.smoothed)
        if samples:
            self._emit(SAMPLES, samples, [method])
        if exchange.empty_maps:
            self._emit(EMPTY_MAPS, exchange.empty_maps, [method])


def _kind(exchange: Exchange) -> str:
    if exchange.request is None:
        return "refused"
    return "explanation" if exchange.explains else "prediction"


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
