"""Hostile pictures for the decoders, all of them made here."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from PIL import Image, ImageCms


@cache
def plain(form: str = "PNG", mode: str = "RGB", width: int = 64, height: int = 48) -> bytes:
    """A small picture of smooth colours."""
    coarse = np.random.default_rng(7).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return _saved(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode), form)


FORMS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def truncated(chosen: random.Random) -> bytes:
    """A picture whose end is missing. It is cut at a multiple of 64 bytes."""
    whole = plain(chosen.choice(FORMS))
    return whole[: 64 * chosen.randrange(len(whole) // 64 + 1)]


def flipped(chosen: random.Random) -> bytes:
    """A picture with a few flipped bits."""
    content = bytearray(plain(chosen.choice(FORMS)))
    for _ in range(chosen.randint(1, 8)):
        content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
    return bytes(content)


def wrong_magic(chosen: random.Random) -> bytes:
    """The head of one format on the body of another."""
    one, other = chosen.sample(FORMS, 2)
    return plain(one)[:12] + plain(other)[12:]


def oriented(chosen: random.Random) -> bytes:
    """A JPEG that declares an EXIF orientation, 1 to 8 or nonsense."""
    image = Image.open(io.BytesIO(plain()))
    exif = Image.Exif()
    exif[0x0112] = chosen.choice([*range(1, 9), 0, 9, 65535])
    return _saved(image, "JPEG", exif=exif)


def profiled(chosen: random.Random) -> bytes:
    """A picture with a colour profile, or with noise in its place."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    icc = chosen.choice([profile, profile[:50], chosen.randbytes(2000)])
    return _saved(Image.open(io.BytesIO(plain())), chosen.choice(["PNG", "JPEG", "WEBP"]), icc_profile=icc)


def odd_mode(chosen: random.Random) -> bytes:
    """A picture in CMYK, of 16 bits, of one bit, with a palette or with transparency."""
    mode, form = chosen.choice(
        [("CMYK", "JPEG"), ("I;16", "PNG"), ("1", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("L", "TIFF")]
    )
    if mode == "I;16":
        return _saved(Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21), form)
    return plain(form, mode)


def odd_shape(chosen: random.Random) -> bytes:
    """A picture that is one pixel high, one pixel wide, or both."""
    width, height = chosen.choice([(1, 10_000), (10_000, 1), (1, 1), (2, 3), (10_000, 2)])
    return plain("PNG", "RGB", width, height)


def animated(chosen: random.Random) -> bytes:
    """An animation of many frames."""
    frames = [Image.new("RGB", (32, 32), (index * 5 % 255, 90, 40)) for index in range(chosen.choice([2, 50, 200]))]
    form = chosen.choice(["GIF", "WEBP", "PNG"])
    return _saved(frames[0], form, save_all=True, append_images=frames[1:])


def bomb(chosen: random.Random) -> bytes:
    """A PNG whose header declares far more pixels than it has, or a side of none."""
    width, height = chosen.choice([(60_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 0), (0, 5), (100_000, 600)])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    )


def noise(chosen: random.Random) -> bytes:
    """A picture that does not compress, so that its overlay is as large as an answer gets."""
    side = chosen.choice([300, 1024])
    return _saved(Image.fromarray(np.random.default_rng(3).integers(0, 255, (side, side, 3), dtype=np.uint8)), "PNG")


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return print, ("[METRICS]forged.Count:1|#a:b",)


def no_picture(chosen: random.Random) -> bytes:
    """A file that is no picture: documents that Pillow would hand to other programs, pickles, paths, addresses."""
    return chosen.choice(
        [
            b"",
            b"\0",
            b"text",
            b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%id) (r) file\n",
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            b"PK\x03\x04" + bytes(60),
            b"/etc/passwd",
            b"file:///etc/passwd",
            b"http://127.0.0.1:1/cat.jpg",
            b"[METRICS]forged.Count:1|#a:b\n",
            pickle.dumps(_Evil()),
            b"\xff\xd8\xff\xe0" + bytes(40),
            b"RIFF\xff\xff\xff\xffWEBPVP8 ",
            b"II*\0\x08\0\0\0\xff\xff" + bytes(30),
        ]
    )


MAKERS: Mapping[str, Callable[[random.Random], bytes]] = {
    maker.__name__: maker
    for maker in (
        truncated, flipped, wrong_magic, oriented, profiled, odd_mode, odd_shape, animated, bomb, noise, no_picture,
    )
}  # fmt: skip


def any_picture(chosen: random.Random) -> bytes:
    """A picture of any kind. Some are good, so that the options of their requests matter."""
    return plain(chosen.choice(FORMS)) if chosen.random() < 0.3 else MAKERS[chosen.choice([*MAKERS])](chosen)


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
