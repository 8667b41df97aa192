"""The page `docs/models.md`, written from the outcomes that a run has kept."""

from __future__ import annotations

from collections.abc import Sequence

from devtools.models.trial import TOLERANCE, Outcome

_LIBRARIES = {
    "torchvision": "Every constructor of `torchvision.models` but four large ones: `vit_l_16`, `vit_l_32`, "
    "`vit_h_14` and `wide_resnet101_2`.",
    "timm": "The smallest constructor of each family of timm. Those of `deepseek_vit`, `gemma4_vit`, `naflexvit` and "
    "`qwen3_vit` have 4 blocks here, and smaller pictures than their own.",
    "transformers": "Small configurations of transformers.",
}


def page(outcomes: Sequence[Outcome]) -> str:
    """The page as Markdown."""
    served = sum(outcome.served for outcome in outcomes)
    lines = [
        "# Networks that were tried",
        "",
        f"{served} of {len(outcomes)} networks with random weights choose their layer by themselves.",
        f"Their Grad-CAM maps are pytorch-grad-cam's to {TOLERANCE:g} of the maximum.",
        "Each one answered a mixed batch of Grad-CAM and gradients, and SmoothGrad.",
        "`python -m devtools.models --write` has tried them and written this page.",
        "",
        "The layout says which axes of the layer's activation are places: `nchw`, `nhwc`, or `tokens:PREFIX:HxW`.",
        "Changed pictures have shown it at load, but for a layout marked *not shown*: a map of so few places that each "
        "one answers to the whole picture.",
    ]
    for library, summary in _LIBRARIES.items():
        rows = [outcome for outcome in outcomes if outcome.library == library]
        if not rows:
            continue
        count = sum(outcome.served for outcome in rows)
        lines += ["", f"## {library}", "", f"{summary} {count} of {len(rows)} are served.", ""]
        lines += ["| family | constructor | layer | layout | distance |", "|---|---|---|---|---|"]
        lines += [_row(outcome) for outcome in rows]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome) -> str:
    if not outcome.served:
        return f"| {outcome.family} | `{outcome.constructor}` | {outcome.sentence.replace('|', ' ')} | | |"
    layout = f"`{outcome.layout}`" + ("" if outcome.proved else ", *not shown*")
    return f"| {outcome.family} | `{outcome.constructor}` | `{outcome.layer}` | {layout} | {outcome.distance:.0e} |"
