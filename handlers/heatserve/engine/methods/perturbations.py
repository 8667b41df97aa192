"""Changes of the image, and what they do to the score: masks, windows and activations as masks."""

from __future__ import annotations

from ..method import Method

PERTURBATIONS: tuple[Method, ...] = ()
