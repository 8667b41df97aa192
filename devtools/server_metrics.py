"""The metrics of a running server."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families

from heatserve_tools.torchserve.server import Server


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum of a metric over its samples that have these labels; 0 where there is none yet."""
    text = requests.get(f"{server.metrics}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return float(sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items()))
