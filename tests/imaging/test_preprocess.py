"""The tensor that the model sees, against torchvision's own transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from heatserve.imaging import INTERPOLATIONS, ImageTooLarge, Picture, Preprocess

LIMIT = 4_000_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(451, 300), (300, 451), (60, 41), (256, 256), (257, 400), (1, 9), (640, 31)]


def photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def stock(*steps: object) -> transforms.Compose:
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


@pytest.mark.parametrize("size", SIZES)
def test_the_default_is_the_stock_handlers_to_the_bit(size: tuple[int, int]) -> None:
    image = photograph(*size)
    expected = stock(transforms.Resize(256), transforms.CenterCrop(224))(image)
    tensor, geometry = Preprocess().tensor(Picture(image, 6), LIMIT)
    assert torch.equal(tensor, expected)
    assert tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert geometry.orientation == 6


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_each_interpolation_is_torchvisions(interpolation: str) -> None:
    image = photograph(451, 300)
    mode = InterpolationMode(interpolation)
    expected = stock(transforms.Resize(232, mode), transforms.CenterCrop((200, 224)))(image)
    tensor, _ = Preprocess(232, (200, 224), interpolation=interpolation).tensor(Picture(image), LIMIT)
    assert torch.equal(tensor, expected)


@pytest.mark.parametrize("size", SIZES)
def test_steps_can_be_left_out(size: tuple[int, int]) -> None:
    image = photograph(*size)
    for resize, crop in ((None, 224), (96, None), (None, None)):
        steps: list[object] = [transforms.Resize(resize)] if resize else []
        steps += [transforms.CenterCrop(crop)] if crop else []
        tensor, geometry = Preprocess(resize, crop).tensor(Picture(image), LIMIT)
        assert torch.equal(tensor, stock(*steps)(image))
        assert tensor.shape[1:] == (geometry.crop_height, geometry.crop_width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_applied_the_model_sees_the_photograph_upright(orientation: int) -> None:
    image = photograph(451, 300)
    image.getexif()[0x0112] = orientation
    expected = stock(transforms.Resize(256), transforms.CenterCrop(224))(ImageOps.exif_transpose(image))
    tensor, geometry = Preprocess(orientation="apply").tensor(Picture(image, orientation), LIMIT)
    assert torch.equal(tensor, expected)
    assert geometry.orientation == 1


def test_a_picture_that_would_grow_too_large_is_refused_before_it_is_resized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image.Image, "resize", lambda *_: pytest.fail("resized"))
    for size in ((1, 10_000), (10_000, 1)):
        with pytest.raises(ImageTooLarge):
            Preprocess().tensor(Picture(Image.new("RGB", size)), LIMIT)
    with pytest.raises(ImageTooLarge):
        Preprocess(None, None).tensor(Picture(Image.new("RGB", (3000, 3000))), LIMIT)


def test_a_large_picture_that_is_only_cropped_is_not_refused() -> None:
    tensor, _ = Preprocess(None, 224).tensor(Picture(Image.new("RGB", (3000, 2000))), LIMIT)
    assert tensor.shape == (3, 224, 224)


def test_the_pixels_of_the_picture_are_left_alone() -> None:
    image = photograph(64, 64)
    before = np.array(image)
    Preprocess(None, None).tensor(Picture(image), LIMIT)
    assert np.array_equal(np.asarray(image), before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"interpolation": "cubic"},
        {"orientation": "yes"},
        {"resize": 0},
        {"crop": -1},
        {"crop": (224, 0)},
        {"std": (0.2, 0.0, 0.2)},
        {"mean": (0.5,)},
    ],
)
def test_an_impossible_setting_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Preprocess(**wrong)  # type: ignore[arg-type]
