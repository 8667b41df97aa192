"""metrics.yaml declares metrics to the server: it must have those that the code emits."""

from __future__ import annotations

import yaml

from heatserve.serving.metrics import COMMON_DIMENSIONS, DECLARED
from heatserve_tools.torchserve.shipped import METRICS


def test_metrics_yaml_declares_exactly_what_the_code_emits() -> None:
    declared = yaml.safe_load(METRICS.read_text())["model_metrics"]
    ours = {
        (entry["name"], kind, entry["unit"], tuple(entry["dimensions"]))
        for kind, entries in declared.items()
        for entry in entries
        if entry["name"].startswith("heatserve_")
    }
    assert ours == {(d.name, d.kind, d.unit, (*d.dimensions, *COMMON_DIMENSIONS)) for d in DECLARED}


def test_metrics_yaml_keeps_torchserves_own_metrics() -> None:
    from pathlib import Path

    import ts

    own = yaml.safe_load((Path(ts.__file__).parent / "configs" / "metrics.yaml").read_text())
    declared = yaml.safe_load(METRICS.read_text())
    names = {entry["name"] for entries in declared["ts_metrics"].values() for entry in entries}
    assert names == {entry["name"] for entries in own["ts_metrics"].values() for entry in entries}
