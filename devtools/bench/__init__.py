"""The measurements behind the promises: `scripts/bench`. Ratios come from interleaved rounds, never from two runs."""

import os

# Torch's profiler, which counts the memory, otherwise writes into the progress bar. Read when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
