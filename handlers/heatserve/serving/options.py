"""The options of a request in one table: names, types, ranges and defaults.

Requests, the archive's own defaults, `describe`, the error messages and the documents all read this table.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine import METHODS
from ..imaging import COLORMAPS
from .formats import OUTPUTS

#: The largest N of `target: topN`, and the most labels of `target: present`.
MAX_TARGETS = 10
#: The largest K of `contrast: nearestK`.
MAX_NEAREST = 10
_MAX_DEADLINE_MS = 3_600_000


@dataclass(frozen=True)
class _Methods(Collection[str]):
    """The names of all methods. They change as methods are registered."""

    def __contains__(self, name: object) -> bool:
        return name in METHODS

    def __iter__(self) -> Iterator[str]:
        return iter(METHODS)

    def __len__(self) -> int:
        return len(METHODS)


@dataclass(frozen=True)
class Option:
    """One option of a request.

    kind: integer, number, boolean, choice, contrast, target or layer.
    default: for an archive that sets no default of its own.
    low, high: the range of an integer or a number, with both ends.
    choices: names that a choice allows; those of methods change as methods are registered.
    words: the allowed values in words, for an option whose range does not say them.
    set_by_archive: whether an archive may set a default of its own under `explain:`.
    """

    name: str
    kind: str
    default: Any
    summary: str
    low: float = -math.inf
    high: float = math.inf
    choices: Collection[str] = ()
    words: str = ""
    set_by_archive: bool = True

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.words or self.choices:
            return self.words or ", ".join(self.choices)
        if self.kind == "boolean":
            return "true or false"
        if self.kind == "target":
            return f"a class index or label, predicted, top1 to top{MAX_TARGETS}, or present"
        if self.kind == "contrast":
            return f"a class index or label, or nearest1 to nearest{MAX_NEAREST}"
        if self.kind == "layer":
            return "a layer that the archive taps, or several joined by +"
        if self.kind == "integer":
            return f"a whole number from {int(self.low)} to {int(self.high)}"
        return f"a number from {self.low:g} to {self.high:g}"


_ALL = (
    Option("method", "choice", "gradcam", "how to explain", choices=_Methods()),
    Option(
        "target",
        "target",
        "predicted",
        "the class to explain; topN and present give one map for each",
        set_by_archive=False,
    ),
    Option(
        "threshold",
        "number",
        0.5,
        f"a label is present above this probability; target present gives a map for each, at most {MAX_TARGETS}",
        0,
        1,
    ),
    Option(
        "contrast",
        "contrast",
        None,
        "explain the target's score minus this class's, or minus the mean of the nearest classes' scores",
        set_by_archive=False,
    ),
    Option(
        "samples",
        "integer",
        None,
        "noisy copies, points of a path, masks, windows or channels, at most; 1 is no smoothing; by default 50 for "
        "smoothgrad, smoothgrad_squared, vargrad, integrated_gradients and expected_gradients, 10 for smoothdiff, and "
        "as many as fit, up to 200, for rise, occlusion and scorecam",
        1,
        1e9,
        words="a whole number from 1 to the archive's max_samples",
    ),
    Option(
        "standard_error",
        "number",
        None,
        "end the samples once the map's relative standard error is this small; at most samples are taken, or "
        "max_samples if that is not given; smoothdiff takes all of its samples and says its error",
        0.001,
        10,
    ),
    Option(
        "resolution",
        "integer",
        1,
        "side of the blocks of pixels, on the model's view, whose means a smoothed map of the input shows; "
        "the error is then that of these means",
        1,
        1024,
    ),
    Option("noise_level", "number", 0.15, "noise as a share of the input's range (useful: 0.10 to 0.20)", 0, 1),
    Option("seed", "integer", 0, "of the noise or the masks: the same seed gives the same map", 0, 2**53),
    Option("layer", "layer", None, "the layer that CAM-family maps come from", set_by_archive=False),
    Option("top_k", "integer", 5, "how many predictions to list", 1, 1000),
    Option(
        "output",
        "choice",
        None,
        "form of the answer; else the Accept header decides, else json",
        choices=OUTPUTS,
    ),
    Option("overlay", "boolean", False, "add the picture with the map laid over it to a JSON answer"),
    Option(
        "colormap",
        "choice",
        "jet",
        "colours of the overlay; a signed map is always red and blue",
        choices=tuple(COLORMAPS),
    ),
    Option("opacity", "number", 0.6, "of the overlay's colour", 0, 1),
    Option("boxes", "boolean", False, "add the box around the map's largest region"),
    Option("box_threshold", "number", 0.2, "a region is all places that reach this share of the maximum", 0.01, 1),
    Option(
        "deadline_ms",
        "integer",
        None,
        "answer a smoothed map after this time with the samples that there are; smoothdiff takes all of its samples",
        1,
        _MAX_DEADLINE_MS,
    ),
    Option(
        "stream",
        "boolean",
        False,
        "send a smoothed map as it gets better, a line of JSON each time",
        set_by_archive=False,
    ),
)

OPTIONS: Mapping[str, Option] = {option.name: option for option in _ALL}
