"""Stretched, letterboxed, grey, transparent and oblong views, against torchvision, timm and planted blocks."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from heatserve.imaging import INTERPOLATIONS, Picture, Preprocess, decode

LIMIT = 4_000_000
GREY = {"mean": (0.4,), "std": (0.2,), "channels": 1}
SIZES = [(91, 60), (60, 91), (33, 40), (128, 31), (7, 5)]


def photograph(width: int, height: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_a_stretched_view_is_torchvisions_to_the_bit(size: tuple[int, int], interpolation: str) -> None:
    image, mode = photograph(*size), InterpolationMode(interpolation)
    for crop in (None, (30, 40)):
        steps = [transforms.Resize((48, 64), mode), *([transforms.CenterCrop(crop)] if crop else [])]
        normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        expected = transforms.Compose([*steps, transforms.ToTensor(), normalise])(image)
        tensor, _ = Preprocess((48, 64), crop, interpolation=interpolation).tensor(Picture(image), LIMIT)
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_letterboxed_view_is_timms_to_the_bit(size: tuple[int, int]) -> None:
    image, fill = photograph(*size), (114, 20, 250)
    steps = [ResizeKeepRatio((48, 64), longest=1.0), CenterCropOrPad((48, 64), fill=fill), transforms.ToTensor()]
    expected = transforms.Compose(steps)(image)
    preprocess = Preprocess((48, 64), None, (0, 0, 0), (1, 1, 1), letterbox=True, fill=fill)
    tensor, geometry = preprocess.tensor(Picture(image), LIMIT)
    assert torch.equal(tensor, expected)
    assert geometry.seen() == (0, 0, *size)


@pytest.mark.parametrize("size", SIZES)
def test_a_grey_view_is_torchvisions_to_the_bit(size: tuple[int, int]) -> None:
    image = photograph(*size)
    steps = [transforms.Grayscale(), transforms.Resize(48), transforms.CenterCrop(40), transforms.ToTensor()]
    expected = transforms.Compose([*steps, transforms.Normalize((0.4,), (0.2,))])(image)
    tensor, _ = Preprocess(48, 40, **GREY).tensor(Picture(image), LIMIT)
    assert torch.equal(tensor, expected)


@pytest.mark.parametrize(("channels", "mode"), [(2, "LA"), (4, "RGBA")])
def test_a_view_with_alpha_is_torchvisions_to_the_bit(channels: int, mode: str) -> None:
    image, stream = photograph(60, 41, 4), io.BytesIO()
    image.save(stream, "PNG")
    expected = transforms.Compose([transforms.Resize((32, 48)), transforms.ToTensor()])(image.convert(mode))
    preprocess = Preprocess((32, 48), None, (0.0,) * channels, (1.0,) * channels, channels=channels)
    picture = decode(stream.getvalue(), LIMIT, alpha=True)
    assert torch.equal(preprocess.tensor(picture, LIMIT)[0], expected)
    shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert np.array_equal(np.asarray(picture.upright()), np.asarray(shown))


def test_a_picture_without_alpha_is_opaque_and_a_palette_keeps_its_transparent_colour() -> None:
    stream = io.BytesIO()
    photograph(9, 8).save(stream, "PNG")
    assert (np.asarray(decode(stream.getvalue(), LIMIT, alpha=True).image)[..., 3] == 255).all()
    stream, palette = io.BytesIO(), Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(stream, "PNG", transparency=1)
    assert np.asarray(decode(stream.getvalue(), LIMIT, alpha=True).image)[0, 0].tolist() == [10, 20, 30, 0]


def test_the_order_bgr_turns_the_channels_after_which_mean_and_std_are_taken() -> None:
    image = photograph(48, 48)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = transforms.Normalize(mean, std)(transforms.ToTensor()(image).flip(0))
    preprocess = Preprocess((48, 48), None, mean, std, order="bgr")
    tensor, _ = preprocess.tensor(Picture(image), LIMIT)
    assert torch.equal(tensor, expected)
    assert np.array_equal(np.asarray(preprocess.picture(tensor.numpy())), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_picture_of_a_view_is_its_photograph(channels: int) -> None:
    mode = {1: "L", 2: "LA", 4: "RGBA"}[channels]
    image = photograph(20, 10, 4)
    image.putalpha(255)
    preprocess = Preprocess((10, 20), None, (0.5,) * channels, (0.3,) * channels, channels=channels)
    tensor, _ = preprocess.tensor(Picture(image if channels != 1 else image.convert("RGB")), LIMIT)
    expected = image.convert(mode).convert("RGB")
    assert np.array_equal(np.asarray(preprocess.picture(tensor.numpy())), np.asarray(expected))


MODES: dict[str, Preprocess] = {
    "shortest side": Preprocess(72, 64, (0, 0, 0), (1, 1, 1)),
    "stretch": Preprocess((48, 80), None, (0, 0, 0), (1, 1, 1)),
    "stretch and crop": Preprocess((60, 100), (48, 80), (0, 0, 0), (1, 1, 1)),
    "letterbox": Preprocess((48, 80), None, (0, 0, 0), (1, 1, 1), letterbox=True),
    "letterbox, tall": Preprocess((80, 40), None, (0, 0, 0), (1, 1, 1), letterbox=True, fill=(0, 0, 1)),
    "letterbox and crop": Preprocess((90, 70), (64, 64), (0, 0, 0), (1, 1, 1), letterbox=True),
    "view not square": Preprocess(80, (40, 70), (0, 0, 0), (1, 1, 1)),
    "grey": Preprocess((48, 80), None, (0,), (1,), channels=1),
    "alpha": Preprocess((48, 80), None, (0,) * 4, (1,) * 4, channels=4),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("turned", ["ignore", "apply"])
@pytest.mark.parametrize("name", MODES)
def test_a_block_in_the_photograph_lights_the_same_block_of_the_map(name: str, turned: str, orientation: int) -> None:
    check_planted(Preprocess(**{**vars(MODES[name]), "orientation": turned}), orientation)


def check_planted(preprocess: Preprocess, orientation: int) -> None:
    """The view itself is the map: it must come back to where its photograph has the block, and so must its box."""
    upright = np.zeros((120, 150, 3), np.uint8)
    box = (72, 42, 96, 58)  # lies in every crop, and mirrors nowhere onto itself
    upright[box[1] : box[3], box[0] : box[2]] = 255
    picture = decode(sent(upright, orientation), LIMIT, preprocess.alpha)
    assert np.array_equal(np.asarray(picture.upright()), upright)
    tensor, geometry = preprocess.tensor(picture, LIMIT)
    values = tensor[0].numpy()

    lit, seen = geometry.project(values, 150, 120)
    assert seen[upright[..., 0] > 0].all()
    assert np.abs(edges(lit > 0.5) - box).max() <= 2
    assert np.abs(np.array(geometry.box(*edges(values > 0.5))) - box).max() <= 3

    if preprocess.letterbox and preprocess.crop is None:
        assert seen.all() and geometry.seen() == (0, 0, 150, 120)
        inside = np.zeros_like(values)
        inside[geometry.on_photograph()] = 1
        assert 0 < inside.sum() < inside.size
        on_photograph, _ = geometry.project(inside, 150, 120)
        assert (on_photograph > 0.4).all()
        on_photograph, _ = geometry.project(1 - inside, 150, 120)
        assert (on_photograph[4:-4, 4:-4] == 0).all()


def edges(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def sent(upright: np.ndarray, orientation: int) -> bytes:
    """A file whose viewer shows `upright`: the pixels turned the other way, and the tag."""
    turned, exif = Image.fromarray(upright), Image.Exif()
    turned.getexif()[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)
    exif[0x0112] = orientation
    stream = io.BytesIO()
    ImageOps.exif_transpose(turned).save(stream, "PNG", exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 5},
        {"channels": 1},
        {"letterbox": True},
        {"resize": (0, 3)},
        {"order": "gbr"},
        {"fill": (300, 0, 0)},
        {"fill": (0,)},
    ],
)
def test_an_impossible_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Preprocess(**wrong)
