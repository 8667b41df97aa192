"""The time of each decoder, measured beside the table of `heatserve.imaging.cost`."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from devtools.fuzz.measured import plain_jpeg, slowness
from heatserve.imaging import decode, inspect

_SIZE = (2_400, 1_600)
_WAYS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"quality": 95, "subsampling": 0}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"progressive": True, "quality": 95, "subsampling": 0}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("PNG", "RGB", {"compress_level": 1}),
    ("PNG", "RGBA", {"compress_level": 1}),
    ("PNG", "LA", {"compress_level": 1}),
    ("PNG", "L", {"compress_level": 1}),
    ("PNG", "P", {"compress_level": 1}),
    ("PNG", "1", {"compress_level": 1}),
    ("PNG", "I;16", {"compress_level": 1}),
    ("WEBP", "RGB", {"method": 0}),
    ("WEBP", "RGBA", {"method": 0}),
    ("WEBP", "RGB", {"lossless": True, "method": 0}),
    ("WEBP", "RGBA", {"lossless": True, "method": 0}),
    ("GIF", "P", {}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    *(
        ("TIFF", mode, {"compression": compression})
        for compression in (None, "packbits", "tiff_lzw", "tiff_deflate", "zstd", "lzma")
        for mode in ("RGB", "RGBA", "F", "I;16", "L")
    ),
    ("TIFF", "CMYK", {"compression": "tiff_deflate"}),
    ("TIFF", "LAB", {"compression": "tiff_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "RGB", {"compression": "webp"}),
    ("TIFF", "1", {"compression": "group3"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "1", {"compression": "tiff_ccitt"}),
)


@dataclass(frozen=True)
class Decoding:
    """One picture that one decoder has decoded.

    sent: the bytes of its file.
    milliseconds: of CPU time, on the machine that the table is stated for.
    nominal: the milliseconds that the table promises.
    """

    decoder: str
    picture: str
    sent: int
    milliseconds: float
    nominal: float


def measured() -> Iterator[Decoding]:
    """Three pictures in every way to store one: of one colour, of gradients and of noise."""
    sample = plain_jpeg()
    for form, mode, options in _WAYS:
        for name, image in _pictures(mode):
            stream = io.BytesIO()
            try:
                image.save(stream, form, **options)
            except (OSError, KeyError):  # this Pillow does not write it
                continue
            data = stream.getvalue()
            header = inspect(data, 10**8)
            told = " ".join(f"{key}={value}" for key, value in options.items())
            yield Decoding(
                f"{form} {header.coding} {mode} {told}", name, len(data), _least(data, sample), header.decode_ms
            )


def _pictures(mode: str) -> Iterator[tuple[str, Image.Image]]:
    rng = np.random.default_rng(0)
    width, height = _SIZE
    smooth = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(_SIZE, Image.Resampling.BICUBIC)
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    for name, image in (("flat", Image.new("RGB", _SIZE, (200, 100, 50))), ("smooth", smooth), ("noise", noise)):
        if mode in ("F", "I;16"):
            kind = np.float32 if mode == "F" else np.uint16
            yield name, Image.fromarray((np.asarray(image.convert("L")).astype(np.float32) * 200).astype(kind))
        elif mode == "LAB":
            yield name, Image.merge("LAB", image.split())
        else:
            yield name, image.convert(mode)


def _least(data: bytes, sample: bytes) -> float:
    found = []
    for _ in range(3):
        started = time.process_time()
        decode(data, 10**8)
        found.append((time.process_time() - started) / slowness(sample))
    return 1000 * min(found)
