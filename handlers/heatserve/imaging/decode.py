"""The decoder: the bytes that were sent become an 8-bit RGB picture, or one of two errors."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from .header import opened, refusals
from .modes import on_white, to_rgb, to_rgba
from .orientation import orientation_of, upright_image, upright_size


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

    def upright(self, max_side: int | None = None) -> Image.Image:
        """The picture as a viewer shows it, RGB, with at most `max_side` pixels on its longest side. Do not alter it.

        Transparent parts are white.
        """
        image = self.image
        longest = max(image.size)
        if max_side is not None and longest > max_side:
            width, height = (max(1, round(side * max_side / longest)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        if image.mode == "RGBA":
            image = on_white(image)
        return upright_image(image, self.orientation)


def decode(data: bytes, max_pixels: int, alpha: bool = False) -> Picture:
    """The picture in a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF file.

    Transparent parts become white, unless `alpha` asks for an RGBA picture. 16-bit and float greys are scaled to 8 bits
    (see `to_rgb`).

    Raises:
        UnreadableImage: the bytes are empty, truncated, corrupt or not such a picture.
        ImageTooLarge: the header declares more than `max_pixels` pixels. Nothing has been decoded then.
    """
    with refusals():
        _, structure, image = opened(data, max_pixels)
        image.load()
        vars(image).pop("_decoder", None)  # the decoder of a WebP holds two canvases
        # After loading: a PNG may declare its orientation behind its pixels, and Pillow itself turns a TIFF upright.
        orientation = orientation_of(image, structure.exif, structure.xmp)
        return Picture(to_rgba(image) if alpha else to_rgb(image), orientation)
