"""The errors of a picture that was sent. Their messages are for its sender."""

from __future__ import annotations


class UnreadableImage(ValueError):
    """The bytes are not a picture that can be decoded."""


class ImageTooLarge(ValueError):
    """The picture, or its resized copy, would have more pixels or take more time than is allowed."""
