"""What can go wrong in the engine, as types that a caller can tell apart."""

from __future__ import annotations


class UnsuitableModel(ValueError):
    """The network cannot be explained in the way that was asked for; the message says what can be done."""


class OutOfMemory(RuntimeError):
    """The device has no room for even one row."""
