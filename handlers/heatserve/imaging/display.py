"""The grey levels of a map: its positive part on a scale, or both signs around a middle grey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RULES = ("maximum", "percentile")
_PERCENTILE = 99.0
#: The grey level of zero in the picture of a signed map. 127 levels above and below it are the scale's two ends.
ZERO = 128
_ENDS = 127


def positive_part(values: NDArray[Any]) -> NDArray[np.float32]:
    """max(values, 0) as float32, in the same shape. Values that are not finite count as 0."""
    with np.errstate(over="ignore"):
        single = np.asarray(values).astype(np.float32, copy=False)
    finite = np.isfinite(single)
    if finite.all():
        return np.maximum(single, np.float32(0))
    return np.where(finite & (single > 0), single, np.float32(0))


def scale_of(values: NDArray[Any], rule: str) -> float:
    """The attribution that is shown at grey 255. It is 0.0 for a map without a positive part.

    The rule "maximum" is for class activation maps. The rule "percentile" is the 99th percentile of the positive part
    over all pixels, as Smilkov et al. (2017) cap the outliers of gradients, or the maximum if that percentile is 0.

    Raises ValueError for another rule.
    """
    if rule not in RULES:
        raise ValueError(f"The scale rule is {rule!r}; allowed: {', '.join(RULES)}.")
    positive = positive_part(values)
    if positive.size == 0:
        return 0.0
    if rule == "percentile":
        percentile = float(np.percentile(positive, _PERCENTILE))
        if percentile > 0:
            return percentile
    return float(positive.max())


def grey(values: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """The positive part as uint8, in the same shape: 255 at `scale` and above. All levels are 0 if `scale` is 0."""
    levels = positive_part(values)
    white = np.float32(scale)
    if not 0 < white < np.inf:
        return np.zeros(levels.shape, np.uint8)
    # The division comes first: 255 / scale may be more than a float32 holds.
    np.minimum(levels, white, out=levels)
    levels /= white
    levels *= np.float32(255)
    return np.rint(levels, out=levels).astype(np.uint8)


def signed_grey(values: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """Both signs as uint8, in the same shape: 128 is zero, 255 is `scale` and above, 1 is -`scale` and below.

    All levels are 128 if `scale` is 0.
    """
    with np.errstate(over="ignore"):
        single = np.asarray(values).astype(np.float32, copy=False)
    end = np.float32(scale)
    if not 0 < end < np.inf:
        return np.full(single.shape, ZERO, np.uint8)
    finite = np.where(np.isfinite(single), single, np.float32(0))
    return (ZERO + np.rint(np.clip(finite, -end, end) / end * np.float32(_ENDS))).astype(np.uint8)


def strength() -> NDArray[np.float64]:
    """The share of the scale, 0..1 without its sign, that each grey level of a signed map stands for, [256]."""
    return np.minimum(np.abs(np.arange(256) - ZERO) / _ENDS, 1.0)
