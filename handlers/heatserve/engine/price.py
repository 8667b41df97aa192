"""The price of a pass, in forward passes: the one unit in which work is counted, bounded and scheduled.

A pass without a backward pass costs 1. A backward pass to the input of a network with frozen weights multiplies the
same matrices as the forward pass does, and its convolutions run at about half the speed: it counts 2, and the pair 3.
"""

from __future__ import annotations

#: A forward pass alone.
FORWARD = 1
#: A forward pass and the backward pass through it. Only a draw of a method with several backward passes costs more.
WITH_BACKWARD = 3
