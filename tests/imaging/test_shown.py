"""The photograph that is shown: its size is known without pixels, and its reduction looks like Pillow's."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from heatserve.imaging import Picture, decode, reduce
from heatserve.imaging.reduce import reduced

SIZES = [(1, 1), (1, 5000), (5000, 1), (999, 1000), (1001, 1000), (1500, 90), (90, 1500), (3000, 2000), (2001, 1499)]


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with detail of two sizes, and little noise."""
    generator = np.random.default_rng(seed)
    coarse, fine = (generator.integers(0, 256, (side, side, 3), np.uint8) for side in (9, 120))
    whole = (Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in (coarse, fine))
    return Image.blend(*whole, 0.3)


def psnr(one: Image.Image, other: Image.Image) -> float:
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.fast_path
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", SIZES)
def test_the_size_is_that_of_the_reduced_picture_turned_upright(size: tuple[int, int], orientation: int) -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(stream, "PNG", exif=exif)
    # Pillow's own way: turn first, and let `thumbnail`'s rule of proportions say the size within one pixel.
    turned = ImageOps.exif_transpose(Image.open(stream))
    for most in (64, 1000, 6000):
        photograph = decode(stream.getvalue(), 10**8).shown(most, pixels=False)
        whole = decode(stream.getvalue(), 10**8).shown(most, pixels=True)
        assert photograph.image is None and whole.image is not None
        assert photograph.size == whole.size == whole.image.size
        share = min(1.0, most / max(turned.size))
        assert all(abs(side - max(1.0, of * share)) <= 0.5 + 1e-9 for side, of in zip(photograph.size, turned.size))


@pytest.mark.fast_path
def test_without_pixels_nothing_is_resized_or_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        pytest.fail("the photograph was made")

    picture = Picture(Image.new("RGB", (3000, 2000)), 6)
    for name in ("resize", "reduce", "transpose", "convert", "copy"):
        monkeypatch.setattr(Image.Image, name, forbidden)
    monkeypatch.setattr(reduce, "interpolate", forbidden)
    assert picture.shown(1024, pixels=False).size == (683, 1024)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("size", [(1100, 730), (1936, 1291), (2971, 2001), (4243, 2829), (6001, 4001), (1500, 40)])
def test_the_reduction_looks_like_that_of_all_pixels_at_once(
    size: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduce, "_FAST", fast)
    image = smooth(*size)
    small = (1024, max(1, round(size[1] * 1024 / size[0])))
    found = reduced(image, small)
    assert found.mode == "RGB" and found.size == small
    assert psnr(found, image.resize(small, Image.Resampling.BICUBIC)) > 38


def test_up_to_the_size_of_blocks_it_differs_from_pillow_by_a_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "_FAST", True)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (600, 900, 3), np.uint8))
    found = np.asarray(reduced(noise, (500, 333)), int)
    assert np.abs(found - np.asarray(noise.resize((500, 333), Image.Resampling.BICUBIC), int)).max() <= 1


def test_a_picture_that_is_too_large_for_a_copy_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "_MOST", 1000)
    monkeypatch.setattr(reduce, "interpolate", lambda *_, **__: pytest.fail("a copy was made"))
    assert reduced(smooth(90, 60), (60, 40)).size == (60, 40)


def test_transparent_parts_are_white_in_the_reduced_picture() -> None:
    image = Image.new("RGBA", (300, 200), (200, 0, 0, 0))
    image.paste((10, 20, 30, 255), (0, 0, 150, 200))
    shown = Picture(image).shown(100, pixels=True).image
    assert shown is not None
    assert shown.getpixel((90, 30)) == (255, 255, 255) and shown.getpixel((10, 30)) == (10, 20, 30)
