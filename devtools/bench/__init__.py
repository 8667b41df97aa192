"""The measurements of `scripts/bench`. Ratios come from interleaved rounds, never from two runs."""

import os

# Torch's profiler, which counts the memory, would write into the progress bar. Torch reads this when it is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
