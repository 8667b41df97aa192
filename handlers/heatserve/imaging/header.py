"""The header of a picture: its format, its size and its cost. Nothing is decoded here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from . import gif, jpeg, png, tiff, webp
from .cost import decoding
from .errors import ImageTooLarge, UnreadableImage
from .structure import Structure

# The JPEG decoder also opens camera files with a second picture in them (MPO).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


_SILENT_MODULES = r"PIL\."
#: The filter as the module `warnings` keeps it.
_SILENT = ("ignore", None, Warning, re.compile(_SILENT_MODULES), 0)


@dataclass(frozen=True)
class Header:
    """The facts that a file declares before anything of it is decoded.

    form: Pillow's name of the format.
    mode: Pillow's name of the way in which a pixel is stored.
    coding: the way in which pixels are packed, "progressive" for example.
    width, height: in pixels, as stored.
    decode_ms: nominal milliseconds of one core for making 8-bit RGB of it.
    peak_bytes: the nominal peak of memory meanwhile.
    """

    form: str
    mode: str
    coding: str
    width: int
    height: int
    decode_ms: float
    peak_bytes: int


@dataclass(eq=False)
class Opened:
    """A file whose header is read, ready to be decoded once.

    image: of Pillow; it loads its pixels when it is asked for them. None once it is taken.
    """

    header: Header
    structure: Structure
    image: Image.Image | None

    def taken(self) -> Image.Image:
        """The image. This holds it no longer: its pixels stay no longer than whoever takes it needs them.

        Raises RuntimeError where it was taken before.
        """
        image, self.image = self.image, None
        if image is None:
            raise RuntimeError("a file can be decoded once")
        return image


_MAGIC: Mapping[bytes, str] = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"RIFF": "WEBP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II": "TIFF",
    b"MM": "TIFF",
}
_STRUCTURES: Mapping[str, Callable[[bytes], Structure]] = {
    "JPEG": jpeg.structure_of,
    "PNG": png.structure_of,
    "WEBP": webp.structure_of,
    "GIF": gif.structure_of,
    "BMP": Structure,
    "TIFF": tiff.structure_of,
}


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header of a JPEG, PNG, WebP, GIF, BMP or TIFF file. Reading it costs little, and no more than its bytes need.

    Raises:
        UnreadableImage: the bytes are empty, or not such a picture, or coded in a way that is refused.
        ImageTooLarge: more than `max_pixels` pixels are declared.
    """
    return opened(data, max_pixels).header


def opened(data: bytes, max_pixels: int) -> Opened:
    """A picture that is ready to be decoded. It holds a copy of the parts of the file that pixels are decoded from.

    Raises the errors of `inspect`.
    """
    with refusals():
        return _opened(data, max_pixels)


@contextmanager
def refusals() -> Iterator[None]:
    """A context in which every error of Pillow becomes one of the two errors, and its warnings are dropped."""
    # Pillow warns of faults that it can read over; no reader sees the warning. The filter stays: a context of warnings
    # is not safe where several threads decode.
    if list(warnings.filters[:1]) != [_SILENT]:
        warnings.filterwarnings("ignore", module=_SILENT_MODULES)
    try:
        yield
    except (UnreadableImage, ImageTooLarge):
        raise
    except Image.DecompressionBombError:
        raise ImageTooLarge("The image has more pixels than the decoder accepts.") from None
    except Exception:  # hostile bytes make a decoder raise almost anything, MemoryError included
        raise UnreadableImage("The image is corrupt or truncated.") from None


def _opened(data: bytes, max_pixels: int) -> Opened:
    if not data:
        raise UnreadableImage("The image is empty: no bytes were sent.")
    form = next((form for magic, form in _MAGIC.items() if data.startswith(magic)), None)
    if form is None:
        raise UnreadableImage("The data is not a JPEG, PNG, WebP, GIF, BMP or TIFF image.")
    structure = _STRUCTURES[form](data)
    if structure.size is not None:
        _bounded(*structure.size, max_pixels)
    try:
        image = Image.open(BytesIO(structure.data), formats=(form,))
    except UnidentifiedImageError:
        raise UnreadableImage("The data is not a JPEG, PNG, WebP, GIF, BMP or TIFF image.") from None
    width, height = image.size
    # By its version Pillow gives the size of a TIFF before or after turning it.
    if structure.size is not None and sorted(structure.size) != sorted(image.size):
        raise UnreadableImage("The image does not have the size that its header says.")
    if len(getattr(image, "tile", ())) > tiff.MAX_TILES:
        raise UnreadableImage("The image is cut into more tiles than a picture needs.")
    _bounded(width, height, max_pixels)
    if any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ())):
        raise UnreadableImage("The BMP is run-length coded, which is not supported: send it as PNG.")
    pixels = max(structure.pixels, width * height)
    cost = decoding(form, _stored(image), pixels, len(data), structure)
    header = Header(form, image.mode, structure.coding, width, height, cost.ms, cost.peak_bytes)
    return Opened(header, structure, image)


def _stored(image: Image.Image) -> str:
    """The mode by which the conversion is charged."""
    return "transparent" if "transparency" in image.info else image.mode


def _bounded(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnreadableImage("The image has no pixels.")
    if width * height > max_pixels:
        raise ImageTooLarge(f"The image has {width} x {height} pixels; at most {max_pixels} pixels are allowed.")
