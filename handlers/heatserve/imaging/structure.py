"""The structure of a file: the facts that its headers declare before a decoder sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """The parts of a file, counted from its headers.

    data: the file without the parts that no decoder of pixels needs.
    coding: the way in which pixels are packed. Format and coding name a row of the table of costs.
    size: width and height, or None if Pillow reads them.
    pixels: the number that the decoder computes, with the padding of blocks and tiles. 0 stands for width x height.
    passes: the number of passes of the decoder over a plane of that many pixels.
    parts: the number of segments, chunks or strips.
    turned: whether the decoder turns the picture upright by itself.
    exif, xmp: the metadata that declare the orientation, if they were taken out of `data`.
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
