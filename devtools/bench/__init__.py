"""The measurements behind the promises: `scripts/bench`. Ratios come from interleaved rounds, never from two runs."""
