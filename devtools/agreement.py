"""The rule by which two maps of the same request are the same.

Kernels choose their algorithm by the shape of a batch, so a row rounds differently in another batch. For most samples
the difference is below 1e-6 of the map's maximum. A network of ReLUs has kinks, though: where rounding moves one
pre-activation across a kink, that sample's gradient jumps, and the mean over few samples shows it. One noisy copy in
160 through EfficientNet-Lite0 jumped by 0.8 % of its maximum. A wrong row, class, seed or noise differs by the size of
the map itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The largest difference of equal maps, in maxima of the map.
KINK = 1e-2


def distance(found: NDArray[Any], known: NDArray[Any]) -> float:
    """The largest difference, in maxima of the known map; infinite for maps of different shapes."""
    if found.shape != known.shape:
        return float("inf")
    return float(np.abs(found - known).max() / np.abs(known).max())


def agree(found: NDArray[Any], known: NDArray[Any]) -> bool:
    """Whether two maps differ by rounding alone. A jump at a kink counts as rounding."""
    return distance(found, known) <= KINK
