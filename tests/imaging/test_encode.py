"""Encoded bytes, read back by PIL and NumPy."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

from heatserve.imaging import jpeg_file, npy_file, png_file, webp_file

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


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (301, 173)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("content", ["noise", "flat", "ramp"])
def test_a_png_of_any_shape_is_read_by_two_decoders(size: tuple[int, int], mode: str, content: str) -> None:
    width, height = size
    bands = len(Image.new(mode, (1, 1)).getbands())
    ramp = np.arange(height)[:, None, None] * 3 + np.arange(width)[None, :, None] * 7 + np.arange(bands) * 90
    noise = RNG.integers(0, 256, (height, width, bands))
    pixels = {"noise": noise, "flat": np.full_like(noise, 200), "ramp": ramp % 256}[content].astype(np.uint8)
    image = Image.fromarray(pixels if bands > 1 else pixels[..., 0])
    data = png_file(image)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))
    read = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    assert np.array_equal(read.permute(1, 2, 0).numpy(), pixels)


def test_the_text_of_a_png_is_read_back() -> None:
    text = {"Prediction Label": "tabby cat", "Explanation Scale": "0.25", "Note": "Bär"}
    picture = Image.open(io.BytesIO(png_file(Image.new("RGB", (5, 4), (1, 2, 3)), text)))
    picture.load()
    assert picture.text == text and picture.getpixel((4, 3)) == (1, 2, 3)
    assert b"?" in png_file(Image.new("L", (1, 1)), {"Note": "\u4e2d"})


def test_a_picture_with_transparency_is_no_png_of_ours() -> None:
    with pytest.raises(ValueError, match="RGBA"):
        png_file(Image.new("RGBA", (2, 2)))


@pytest.mark.parametrize("encode", [webp_file, jpeg_file])
def test_lossy_pictures_are_close_and_small(encode: Callable[[Image.Image], bytes]) -> None:
    coarse = Image.fromarray(RNG.integers(0, 256, (12, 18, 3), np.uint8))
    image = coarse.resize((360, 240), Image.Resampling.BICUBIC)
    image.info["comment"] = b"where I live"
    data = encode(image)
    error = np.mean((np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) - np.asarray(image, float)) ** 2)
    assert 10 * np.log10(255**2 / error) > 34 and len(data) < 30_000
    assert b"where I live" not in data


@pytest.mark.parametrize("kind", ["layer", "pixels"])
def test_a_heatmap_takes_hardly_more_bytes_than_in_a_png_of_pillow(kind: str) -> None:
    values = RNG.random((7, 7) if kind == "layer" else (224, 224))
    picture = Image.fromarray((255 * values).astype(np.uint8)).resize((600, 600), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    assert len(png_file(picture)) < 1.1 * len(stream.getvalue())


@pytest.mark.fast_path
@pytest.mark.parametrize("shape", [(700, 800, 3), (683, 1024, 3), (1001, 1111), (2, 200_000, 3), (1, 400_000, 3)])
@pytest.mark.parametrize("content", ["noise", "flat"])
def test_a_png_packed_by_two_threads_is_read_by_two_decoders(
    shape: tuple[int, ...], content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", _noting(started, threading.Thread.start))
    pixels = RNG.integers(0, 256, shape, np.uint8) if content == "noise" else np.full(shape, 7, np.uint8)
    data = png_file(pixels)
    assert started
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    read = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    assert np.array_equal(read.permute(1, 2, 0).numpy().reshape(shape), pixels)
    # Pillow does not look at the stream's sum: Python's own zlib does.
    (length,) = struct.unpack(">I", data[33:37])
    assert data[37:41] == b"IDAT" and len(zlib.decompress(data[41 : 41 + length])) > pixels.size
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert len(data) < len(png_file(pixels)) * 1.001 + 400


def test_without_a_second_thread_a_png_is_packed_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(0, 256, (700, 800, 3), np.uint8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = png_file(pixels)

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert png_file(pixels) == alone


def _noting(started: list[threading.Thread], start: Callable[[threading.Thread], None]) -> Any:
    def noted(self: threading.Thread) -> None:
        started.append(self)
        start(self)

    return noted
