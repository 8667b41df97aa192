"""The fixed sizes of passes on CUDA: few shapes, so that each is tuned, warmed and captured once."""

from __future__ import annotations

#: The numbers of rows that a pass may have on CUDA.
SIZES = (1, 2, 4, 8, 16, 32, 64)
