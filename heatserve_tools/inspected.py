"""The findings of an inspection, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from heatserve_tools import hints

if TYPE_CHECKING:
    from heatserve_tools.packaging.inspector import Inspected


def show(console: Console, inspected: Inspected) -> None:
    """Prints all findings."""
    found = inspected.found
    facts = {
        "target": inspected.target,
        **_manifest(inspected.manifest),
        **(_description(found["description"], found["optimised"]) if found.get("description") else {}),
        **(_network(found["network"]) if found.get("network") else {}),
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", soft_wrap=True, markup=False)
    if found.get("network"):
        if found["network"]["layers"]:
            console.print(_layers(found["network"]))
        console.print(_methods(found["network"]))
    for reason in _reasons(inspected):
        hint = hints.of(reason)
        console.print(f"[red]refused[/]: {escape(f'{reason}. {hint}' if hint else reason)}", soft_wrap=True)


def show_sheet(console: Console, inspected: Inspected, written: Path | None) -> None:
    """Prints the file of the contact sheet, or why there is none; nothing where none was asked for."""
    made = inspected.found.get("sheet") or {}
    if written is not None:
        about = f"{len(made['methods'])} methods for {made['target']} ({made['probability']:.2f})"
        console.print(f"contact sheet: {written}: {about}", soft_wrap=True, markup=False)
    elif made.get("refused"):
        console.print(f"[red]no contact sheet[/]: {escape(made['refused'])}", soft_wrap=True)


def _manifest(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The facts that the manifest says."""
    model, ours = manifest.get("model", {}), manifest.get("heatserve", {})
    named = " ".join(str(model[key]) for key in ("modelName", "modelVersion") if model.get(key))
    facts = {"model": named, "architecture": str(ours.get("architecture") or model.get("modelFile") or "-")}
    if ours.get("contents_sha256"):
        facts["contents"] = f"sha256 {ours['contents_sha256']}"
    facts["heatserve"] = str(ours.get("version", "-"))
    return facts


def _description(description: Mapping[str, Any], optimised: Mapping[str, Any]) -> dict[str, str]:
    """The facts that `describe` says, and the optimisations."""
    archive, view = description["archive"], description["preprocess"]
    weights = archive["weights"]
    steps = [
        f"resize {view['resize']}" if view["resize"] else "no resizing",
        f"crop {view['crop']}" if view["crop"] else "no crop",
        *([f"letterbox {list(view['fill'] or ())}"] if view["letterbox"] else []),
        *([f"channels {view['channels']}"] if view["channels"] != 3 else []),
        *([f"order {view['order']}"] if view["order"] != "rgb" else []),
        str(view["interpolation"]),
        f"orientation {view['orientation']}",
        f"mean {_numbers(view['mean'])}",
        f"std {_numbers(view['std'])}",
    ]
    faster = [
        f"{optimised['folded']} batch normalisations folded",
        f"{optimised['padded']} convolutions padded",
        f"{optimised['packed']} convolutions packed",
        str(optimised["layout"]),
    ]
    return {
        "verified": "yes: its members are as packaged"
        if archive["verified"]
        else "no: it has no hashes of its members",
        "weights": f"{weights['member']} sha256 {weights['member_sha256']}"
        if weights["member"]
        else "those that the architecture makes",
        "labels": "yes" if description["labelled"] else "no: classes have numbers",
        "preprocessing": ", ".join(steps),
        "precision": f"{description['precision']} (predictions: {description['prediction_precision']})",
        "optimisations": ", ".join(faster) if description["optimize"] else "none: explain.optimize is false",
        "serving": "step by step (continuousBatching)" if description["continuous_batching"] else "batch by batch",
    }


def _network(network: Mapping[str, Any]) -> dict[str, str]:
    from heatserve_tools.packaging.activation import MEANINGS

    layer, scores = network["layer"], network["scores"]
    return {
        "network": f"{network['classes']} classes, {network['parameters'] / 1e6:.1f} million parameters",
        "scores": scores["found"],
        "activation": f"{scores['activation']}: {MEANINGS[scores['activation']]}",
        "layer": f"{layer['name']}: {layer['why']}" if layer["name"] else "none is chosen by itself",
    }


def _layers(network: Mapping[str, Any]) -> Table:
    table = Table(
        Column("layer", overflow="fold"), "shape", "layout", "layout is", "maps", title="layers", title_justify="left"
    )
    for layer in network["layers"]:
        maps = "empty: no gradient" if layer["gradient"] is False else "possible"
        maps = "refused" if layer["refused"] else maps
        if layer["name"] == network["layer"]["name"]:
            maps += " (default)"
        shape = " x ".join(map(str, layer["shape"])) or "-"
        table.add_row(escape(layer["name"]), shape, layer["layout"] or "-", layer["shown"], maps)
    return table


def _methods(network: Mapping[str, Any]) -> Table:
    table = Table("method", "samples", "forward passes", "maps", title="methods", title_justify="left")
    for method in network["methods"]:
        passes = "-" if method["refused"] else str(method["passes"])
        table.add_row(method["name"], str(method["samples"]), passes, "refused" if method["refused"] else "possible")
    return table


def _reasons(inspected: Inspected) -> Iterator[str]:
    """Each reason for a refusal once, with the names that it refuses."""
    if inspected.trouble:
        yield f"the archive: {inspected.trouble}"
    found = inspected.found
    refused: dict[str, list[str]] = {}
    if found.get("refused"):
        refused[found["refused"]] = ["the model"]
    network = found.get("network") or {}
    for kind in ("layers", "methods"):
        for one in network.get(kind, ()):
            if one["refused"]:
                reason = one["refused"].removeprefix(f"{one['name']} is not possible: ")
                refused.setdefault(reason, []).append(one["name"])
    for reason, names in refused.items():
        yield f"{', '.join(names)}: {reason}"


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.3g}" for value in values)
