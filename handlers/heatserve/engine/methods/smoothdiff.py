"""SmoothDiff: the backward pass by mean local derivatives. Its samples are those of `engine.smoothdiff`."""

from __future__ import annotations

from ..method import Method
from .gradients import gradient, strongest_channel

SMOOTHDIFF = (
    Method(
        "smoothdiff",
        "gradient by local derivatives that are means over noisy copies: close to SmoothGrad, for fewer passes",
        "Hill et al. 2025",
        "input",
        gradient,
        strongest_channel,
        statistic="derivatives",
        samples=10,
        definition="J_L D_L ... J_1 D_1, D_l = mean_n f_l'(z_l(x + e_n)), e_n ~ N(0, sigma^2)",
        reference="closed forms; SmoothGrad's mean, which it equals with one nonlinear layer",
        caveat="It is an approximation of SmoothGrad with a bias that does not average out.",
        approximates="smoothgrad",
    ),
)
