"""Test pictures, drawn from seeds: smooth colours in many forms and sizes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def drawn(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def picture(width: int = 60, height: int = 40, seed: int = 0, form: str = "PNG") -> bytes:
    return encoded(drawn(width, height, seed), form)


def noise(width: int, height: int) -> bytes:
    """A PNG that cannot be compressed."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def plain(*colour: int) -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", (40, 40), colour))


def two_tone(left: int, right: int) -> bytes:
    """A PNG of two greys side by side."""
    image = Image.new("RGB", (40, 40), (left,) * 3)
    image.paste((right,) * 3, (20, 0, 40, 40))
    return encoded(image)


def oriented(orientation: int) -> bytes:
    """A JPEG whose EXIF says how it was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(drawn(64, 40), "JPEG", exif=exif)


def claimed(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with next to no data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def forms() -> dict[str, bytes]:
    """The same picture in every file format and colour mode."""
    image = drawn()
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    deep = np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27
    return {
        "png": encoded(image),
        "jpeg": encoded(image, "JPEG"),
        "jpeg-progressive": encoded(image, "JPEG", progressive=True),
        "jpeg-grey": encoded(image.convert("L"), "JPEG"),
        "jpeg-cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "webp": encoded(image, "WEBP"),
        "webp-lossless-alpha": encoded(alpha, "WEBP", lossless=True),
        "gif": encoded(image, "GIF"),
        "gif-animated": encoded(image, "GIF", save_all=True, append_images=[drawn(seed=1)]),
        "bmp": encoded(image, "BMP"),
        "tiff": encoded(image, "TIFF"),
        "tiff-lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "png-grey": encoded(image.convert("L")),
        "png-grey-alpha": encoded(alpha.convert("LA")),
        "png-alpha": encoded(alpha),
        "png-palette": encoded(image.convert("P")),
        "png-transparent-palette": encoded(image.convert("P"), transparency=3),
        "png-one-bit": encoded(image.convert("1")),
        "png-16": encoded(Image.fromarray(deep)),
        "ppm": encoded(image, "PPM"),
        "ico": encoded(image, "ICO"),
    }
