"""What can be wrong with a picture that was sent; the messages are meant for its sender."""

from __future__ import annotations


class UnreadableImage(ValueError):
    """The bytes are not a picture that can be decoded."""


class ImageTooLarge(ValueError):
    """The picture, or what it would be resized to, has more pixels than is allowed."""
