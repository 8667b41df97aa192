"""The price of a pass, in forward passes: the one unit in which work is counted, bounded and scheduled.

A pass without a backward pass costs 1. A backward pass to the input of a network with frozen weights multiplies the
same matrices as the forward pass does, and its convolutions run at about half the speed: it counts 2, and the pair 3.
"""

from __future__ import annotations

#: A forward pass alone.
FORWARD = 1
#: A forward pass and the backward pass through it. Only a draw of a method with several backward passes costs more.
WITH_BACKWARD = 3
#: The groups of samples that a jackknife of mean local derivatives leaves out in turn.
GROUPS = 5


def closing(samples: int, error: bool) -> int:
    """The price of the passes that end an explanation by mean local derivatives.

    error: whether its error is asked for.
    """
    return WITH_BACKWARD * (1 + (min(GROUPS, samples) if error else 0))
