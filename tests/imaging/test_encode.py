"""Encoded bytes, read back by PIL and NumPy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from heatserve.imaging import npy_file, png_file

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 3)])
def test_a_png_gives_back_the_pixels(shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    data = png_file(Image.fromarray(pixels))
    assert data.startswith(b"\x89PNG")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


def test_a_png_holds_nothing_but_pixels() -> None:
    image = Image.new("RGB", (4, 4))
    image.info.update(icc_profile=b"profile", comment="where I live", exif=b"Exif\0\0", transparency=(0, 0, 0))
    image.getexif()[0x010E] = "where I live"
    data = png_file(image)
    assert not any(kind in data for kind in (b"iCCP", b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tRNS"))
    assert image.info["comment"] == "where I live"


def test_an_npy_gives_back_the_map_as_float32() -> None:
    values = RNG.standard_normal((5, 7, 3)).transpose(1, 0, 2)
    read = np.load(io.BytesIO(npy_file(values)), allow_pickle=False)
    assert read.dtype == np.float32 and read.flags.c_contiguous
    assert np.array_equal(read, values.astype(np.float32))
