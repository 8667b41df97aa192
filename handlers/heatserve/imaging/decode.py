"""The decoder: the bytes that were sent become an 8-bit RGB picture, or one of two errors."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from .header import Opened, opened, refusals
from .modes import on_white, to_rgb, to_rgba
from .orientation import orientation_of, upright_image, upright_size
from .reduce import reduced


@dataclass(frozen=True)
class Photograph:
    """The photograph as an answer shows it: upright and no larger than it may be.

    size: (width, height). Pictures of maps have it too.
    image: RGB of this size; None where the answer shows maps without the photograph.
    """

    size: tuple[int, int]
    image: Image.Image | None


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    image: 8-bit RGB, or RGBA where alpha was asked for. Its rows are in the order that Pillow decodes, which the stock
        handler shows to the model.
    orientation: the EXIF orientation (1 to 8) that a viewer still has to apply.
    """

    image: Image.Image
    orientation: int = 1

    @property
    def width(self) -> int:
        """The width in pixels as a viewer shows it."""
        return upright_size(*self.image.size, self.orientation)[0]

    @property
    def height(self) -> int:
        """The height in pixels as a viewer shows it."""
        return upright_size(*self.image.size, self.orientation)[1]

    def shown(self, max_side: int, pixels: bool) -> Photograph:
        """The picture as an answer shows it, with at most `max_side` pixels on its longest side.

        pixels: whether the answer shows more of it than its size. Without them nothing is resized.
        """
        size = shown_size(self.width, self.height, max_side)
        return Photograph(size, self.upright(max_side) if pixels else None)

    def upright(self, max_side: int | None = None) -> Image.Image:
        """The picture as a viewer shows it, RGB, with at most `max_side` pixels on its longest side. Do not alter it.

        Transparent parts are white.
        """
        image = self.image
        if max_side is not None and max(image.size) > max_side:
            image = reduced(image, shown_size(*image.size, max_side))
        if image.mode == "RGBA":
            image = on_white(image)
        return upright_image(image, self.orientation)


def shown_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """The width and height of a picture whose longest side has become at most `max_side` pixels."""
    longest = max(width, height)
    if longest <= max_side:
        return width, height
    return max(1, round(width * max_side / longest)), max(1, round(height * max_side / longest))


def decode(data: bytes, max_pixels: int, alpha: bool = False, file: Opened | None = None) -> Picture:
    """The picture in a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF file.

    Transparent parts become white, unless `alpha` asks for an RGBA picture. 16-bit and float greys are scaled to 8 bits
    (see `to_rgb`).

    file: the same bytes, if they were opened before; a file can be decoded once.

    Raises:
        UnreadableImage: the bytes are empty, truncated, corrupt or not such a picture.
        ImageTooLarge: the header declares more than `max_pixels` pixels. Nothing has been decoded then.
    """
    found = file or opened(data, max_pixels)
    structure, image = found.structure, found.taken()
    with refusals():
        image.load()
        vars(image).pop("_decoder", None)  # the decoder of a WebP holds two canvases
        # After loading: a PNG may declare its orientation behind its pixels, and Pillow itself turns a TIFF upright.
        orientation = orientation_of(image, structure.exif, structure.xmp)
        return Picture(to_rgba(image) if alpha else to_rgb(image), orientation)
