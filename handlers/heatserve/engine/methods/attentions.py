"""Relevance in transformers, from their attention and its gradients."""

from __future__ import annotations

from ..method import Method

ATTENTIONS: tuple[Method, ...] = ()
