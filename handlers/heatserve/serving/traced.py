"""The trace of a network for a reader: its scores, its layers with the chosen one and why, and its methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..engine import FORWARD, METHODS, Candidate, Explainer, Query, UnsuitableModel, try_candidates

#: What is known of a layer's layout.
PROVED, DECLARED, NOT_SHOWN = "proved", "declared", "not shown"


def traced(explainer: Explainer, example: torch.Tensor, named: Sequence[str], declared: bool) -> dict[str, Any]:
    """The scores, layers and methods of a network as JSON values.

    example: (N, C, H, W).
    named: the layers that the archive names.
    declared: whether the archive declares their layout.
    """
    structure, tapped = explainer.structure, explainer.layers
    passed_over = _passed_over(explainer)
    names = list(dict.fromkeys([*tapped, *passed_over, *structure.candidates, *structure.late]))
    found = {one.name: one for one in try_candidates(explainer.model, example, names)}
    return {
        "classes": explainer.classes,
        "scores": _scores(explainer),
        "layer": _choice(explainer, named, [found[name] for name in passed_over]),
        "layers": [_layer(explainer, found[name], declared) for name in names],
        "methods": [_method(explainer, name) for name in METHODS],
    }


def _scores(explainer: Explainer) -> dict[str, Any]:
    """The place where the explained scores are found, and the activation that makes answers of them.

    part: the name of the part of the model's answer that has them; null where the answer itself is the scores.
    left_out: the function at the end of the model's forward that is left out; null for none.
    single: whether one score stands for a label's presence and its absence.
    found: all of it as a sentence.
    """
    outputs = explainer.outputs
    where = f"part {outputs.part!r} of the model's answer" if outputs.part is not None else "the model's answer"
    if outputs.squashed:
        where = f"the input of the {outputs.squashed} at the end of forward, which gives {where}"
    if outputs.single:
        where += "; the one score is that of the label's presence, and its negative that of its absence"
    return {
        "activation": explainer.activation,
        "part": outputs.part,
        "left_out": outputs.squashed,
        "single": outputs.single,
        "found": where,
    }


def _passed_over(explainer: Explainer) -> list[str]:
    """The late layers that were tried before the chosen one; empty where the choice fell on none of them."""
    late, layers = explainer.structure.late, explainer.layers
    if len(layers) != 1 or layers[0] not in late or layers[0] == explainer.structure.layer:
        return []
    return [name for name in late[: late.index(layers[0])] if name != explainer.structure.layer]


def _choice(explainer: Explainer, named: Sequence[str], passed_over: Sequence[Candidate]) -> dict[str, Any]:
    """The layer that is used where a request names none, and the reason for it."""
    try:
        name = explainer.layer
    except UnsuitableModel as error:
        return {"name": None, "why": str(error)}
    if named:
        return {"name": name, "why": "the archive names it (explain.layer)"}
    structure = explainer.structure
    if structure.head is not None and structure.head.layer == name:
        mean = "its mean over all places"
        if structure.head.pooled == "tokens":
            skipped = structure.head.skipped
            mean = f"the mean of its tokens{f' without the first {skipped}' if skipped else ''}"
        return {"name": name, "why": f"the scores are the linear layer {structure.head.classifier} of {mean}"}
    if structure.layer == name:
        why = "it ends the convolutional trunk: only pooling, elementwise functions and vectors follow"
        return {"name": name, "why": why}
    if name in structure.norms:
        last = "the last" if structure.norms[0] == name else "a late"
        why = f"it is the first normalisation of {last} residual block; changed pictures show its places"
    else:
        why = "it is the last layer whose places changed pictures show"
    why += ", and the scores have a gradient there"
    skipped_layers = [f"{one.name} ({_lacks(one)})" for one in passed_over]
    if structure.layer is not None:
        skipped_layers.insert(0, f"{structure.layer} (no layout is shown)")
    return {"name": name, "why": why + (f"; passed over: {', '.join(skipped_layers)}" if skipped_layers else "")}


def _lacks(candidate: Candidate) -> str:
    return "no layout is shown" if candidate.layout is None else "no gradient at its places"


def _layer(explainer: Explainer, found: Candidate, declared: bool) -> dict[str, Any]:
    """One layer.

    layout: as `engine.Layout` writes it; null where the layer is refused.
    shown: "proved", "declared", or "not shown".
    gradient: whether the scores have a gradient at its places; null where that was not found out.
    refused: the sentence with which the layer is refused; null where maps may come from it.
    """
    layout, shown = found.layout, PROVED if found.layout is not None else NOT_SHOWN
    tapped = found.name in explainer.layers
    if tapped:
        layout = explainer.layout_of(found.name)
        shown = PROVED if layout.proved else DECLARED if declared else NOT_SHOWN
    refused = None if tapped else found.refused or None
    return {
        "name": found.name,
        "shape": [*found.shape],
        "layout": None if layout is None or refused else str(layout),
        "shown": shown,
        "gradient": found.reached if found.layout is not None else None,
        "refused": refused,
    }


def _method(explainer: Explainer, name: str) -> Mapping[str, Any]:
    """One method: its draws, the forward passes that an answer costs by the limits' count, or why it is refused."""
    query, refused = Query(name), None
    try:
        explainer.check(name)
    except UnsuitableModel as error:
        refused = str(error)
    return {
        "name": name,
        "passes": None if refused else FORWARD + query.work,
        "samples": query.count,
        "caveat": METHODS[name].caveat or None,
        "refused": refused,
    }
