"""When two maps of the same request are the same.

Kernels choose their algorithm by the shape of a batch, so numbers round differently in other company: for most
samples by less than 1e-6 of the map's maximum. A network of ReLUs has kinks, though. Where rounding moves one
pre-activation across a kink, that sample's gradient jumps (seen: by 0.8 % of its maximum, for one noisy copy in 160
through EfficientNet-Lite0), and the mean over few samples shows it. A wrong row, class, seed or noise is off by the
size of the map itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of the map's maximum.
KINK = 1e-2


def distance(found: NDArray[Any], known: NDArray[Any]) -> float:
    """The largest difference, in maxima of the known map; infinite for maps of different shapes."""
    if found.shape != known.shape:
        return float("inf")
    return float(np.abs(found - known).max() / np.abs(known).max())


def agree(found: NDArray[Any], known: NDArray[Any]) -> bool:
    """Whether two maps differ by rounding alone, kinks included."""
    return distance(found, known) <= KINK
