"""The function that makes answers of a network's scores. Nothing in the scores themselves tells which one it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heatserve.engine import ACTIVATIONS
from heatserve_tools.errors import ToolError

#: The meaning of each activation, for a person who has to choose one.
MEANINGS = {
    "softmax": "each picture is of one class",
    "sigmoid": "each label is there or not, by itself",
    "none": "the outputs are values, not probabilities",
}
assert tuple(MEANINGS) == tuple(ACTIVATIONS)
UNSETTLED = (
    "Nothing shows how the network's outputs become probabilities: add --activation softmax (each picture is of one "
    "class), --activation sigmoid (each label is there or not, by itself) or --activation none (values), or the same "
    "as `explain: {activation: softmax}` in model-config.yaml."
)
_IMAGENET = "torchvision.models"


def of(given: str | None, architecture: str | None, explain: Mapping[str, Any]) -> str | None:
    """The activation that the user named, or that the configuration or the architecture settles; None where none does.

    given: by the user.
    explain: the configuration's block.

    Raises ToolError where the user and the configuration differ.
    """
    named = explain.get("activation")
    if named is not None and given is not None and named != given:
        raise ToolError(
            f"--activation {given} is not the configuration's explain.activation, which is {named!r}: leave one out."
        )
    if given is not None or named is not None:
        return str(given or named)
    module = (architecture or "").partition(":")[0]
    # Its own constructors are of ImageNet's classes. Those of detection and segmentation are no classifiers.
    return "softmax" if module == _IMAGENET else None
