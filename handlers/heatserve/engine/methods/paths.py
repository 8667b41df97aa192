"""Sums of gradients along paths from a reference to the image, and rules that change the backward pass."""

from __future__ import annotations

from ..method import Method

PATHS: tuple[Method, ...] = ()
