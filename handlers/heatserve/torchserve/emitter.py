"""From heatserve's metrics to TorchServe's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..serving.metrics import COMMON_DIMENSIONS, Declared, Emit


def emitter(metrics: Any, kinds: Callable[[str], Any], model_name: str) -> Emit:
    """A function that sends to TorchServe's metrics object.

    A metric that the server's configuration does not declare is declared here, so that an operator's own metrics file
    cannot break an answer. The server drops it then.

    kinds: gives TorchServe's type of a metric by the name of its kind.
    """
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
