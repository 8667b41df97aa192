"""The pictures that a notebook gives: files, bytes, folders, and Pillow's images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Union

from PIL import Image

from ..imaging import Picture, decode

#: A picture: its file, its bytes, or Pillow's image.
Source = Union[str, Path, bytes, Image.Image]
#: The largest picture that is decoded, in pixels.
MAX_PIXELS = 200_000_000
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def picture_of(source: Source) -> Picture:
    """The decoded picture. Raises OSError or ValueError."""
    if isinstance(source, Image.Image):
        return Picture(source.convert("RGB"))
    return decode(source if isinstance(source, bytes) else Path(source).read_bytes(), MAX_PIXELS)


def files_in(folder: str | Path | Iterable[str | Path]) -> list[Path]:
    if not isinstance(folder, (str, Path)):
        return [Path(path) for path in folder]
    root = Path(folder)
    if not root.is_dir():
        return [root]
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES)
