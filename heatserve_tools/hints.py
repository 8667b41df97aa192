"""The ways out of a refusal of the handler that the tools know and the handler does not."""

from __future__ import annotations

from pathlib import Path


def of(refusal: str, labels: Path | None = None) -> str:
    """The way out, as a sentence after the refusal; empty where there is none.

    labels: the file that the archive's index_to_name.json was made from.
    """
    if "not clear which layer" in refusal or "no layer inside it can be recorded" in refusal:
        return "Without such a layer, set `explain: {method: gradient}` in model-config.yaml (--config)."
    if "ScriptModules" in refusal:
        return "A TorchScript module has no layers to explain: give the module that it was made from."
    if "index_to_name.json must name" in refusal and labels is not None:
        from heatserve_tools.packaging.labels import read

        return f"The labels {labels} name {len(read(labels))} classes."
    return ""
