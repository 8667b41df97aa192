"""The structure of a file: what its headers say before a decoder sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """How a file is put together, counted from its headers.

    data: the file without the parts that no decoder of pixels needs.
    coding: with the format, the row of the table of costs.
    size: width and height where the headers are read here; None where Pillow reads them.
    pixels: that the decoder computes, padding of blocks and tiles included; 0 for width x height.
    passes: of the decoder over a plane of that many pixels.
    parts: segments, chunks or strips.
    turned: whether the decoder turns the picture upright by itself.
    exif, xmp: the metadata that declare the orientation, where they were taken out of `data`.
    """

    data: bytes
    coding: str = "plain"
    size: tuple[int, int] | None = None
    pixels: int = 0
    passes: float = 0.0
    parts: int = 0
    turned: bool = False
    exif: bytes = b""
    xmp: bytes = b""
