"""The block `preprocess:` from timm and Hugging Face, against their own transforms of the same photograph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from heatserve.imaging import Picture
from heatserve.serving.view import read_view
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging.preprocessing import from_huggingface, from_timm

#: Sizes at which the crop of Hugging Face and that of torchvision start at the same pixel, and three others for timm.
SIZES = [(90, 60), (64, 128)]
ODD = [(91, 60), (61, 97), (33, 40)]


def photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ours(block: dict[str, Any], image: Image.Image) -> torch.Tensor:
    return read_view(block, 4_000_000).tensor(Picture(image), 4_000_000)[0]


TIMM = (
    "resnet18",
    "vit_tiny_patch16_224",
    "convnext_tiny",
    "efficientnet_b0",
    "beit_base_patch16_224",
    "mixer_b16_224",
)


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("size", SIZES + ODD)
def test_a_pretrained_cfg_gives_timms_view_to_the_bit(name: str, size: tuple[int, int]) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None
    check_timm(cfg.to_dict(), size)


@pytest.mark.parametrize("mode", ["squash", "border", "center"])
@pytest.mark.parametrize("share", [1.0, 0.9])
@pytest.mark.parametrize("size", SIZES + ODD)
def test_each_crop_mode_is_timms_to_the_bit(mode: str, share: float, size: tuple[int, int]) -> None:
    side = (3, 48, 48) if mode == "center" else (3, 48, 64)
    check_timm({"input_size": side, "crop_pct": share, "crop_mode": mode, "interpolation": "bicubic"}, size)


def check_timm(cfg: dict[str, Any], size: tuple[int, int]) -> None:
    image = photograph(*size)
    expected = create_transform(**resolve_data_config(pretrained_cfg=cfg), is_training=False)(image)
    assert torch.equal(ours(from_timm(cfg), image), expected)


HUGGINGFACE = {
    "vit": ViTImageProcessorPil(size={"height": 48, "width": 64}),
    "vit half": ViTImageProcessorPil(size={"height": 48, "width": 48}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2] * 3),
    "vit not rescaled": ViTImageProcessorPil(size={"height": 48, "width": 48}, do_rescale=False),
    "vit not normalised": ViTImageProcessorPil(size={"height": 48, "width": 48}, do_normalize=False),
    "vit, another factor": ViTImageProcessorPil(size={"height": 48, "width": 48}, rescale_factor=1 / 127.5),
    "deit": DeiTImageProcessorPil(size={"height": 64, "width": 64}, crop_size={"height": 56, "width": 56}),
    "beit": BeitImageProcessorPil(size={"height": 48, "width": 48}),
    "dinov2": BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}),
    "convnext": ConvNextImageProcessorPil(size={"shortest_edge": 56}),
    "convnext large": ConvNextImageProcessorPil(size={"shortest_edge": 384}),
    "mobilevit": MobileViTImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HUGGINGFACE)
def test_a_processors_configuration_gives_its_view(name: str, size: tuple[int, int]) -> None:
    processor, image = HUGGINGFACE[name], photograph(*size)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    found = ours(from_huggingface(processor.to_dict()), image)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"input_size": (3, 48, 64), "crop_pct": 0.9}, "crop_mode is 'center' for a view of 48 x 64"),
        ({"interpolation": "random"}, "interpolation is 'random'"),
        ({"crop_mode": "fancy"}, "crop_mode is 'fancy'"),
        ({"input_size": (1, 48, 48)}, "mean has 3 numbers for 1 channels"),
    ],
)
def test_a_cfg_that_has_no_equal_is_refused(cfg: dict[str, Any], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        from_timm(cfg)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_processor_type": "LevitImageProcessor"}, "image_processor_type is 'LevitImageProcessor'"),
        ({"do_pad": True}, "do_pad is True"),
        ({"rescale_offset": True}, "rescale_offset is True"),
        ({"resample": 5}, "resample is 5"),
        ({"size": {"longest_edge": 3}}, "size is {'longest_edge': 3}"),
        ({"size": {"shortest_edge": 3}}, "without a centre crop"),
        ({"image_std": None}, "image_std"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
    ],
)
def test_a_processor_that_has_no_equal_is_refused(change: dict[str, Any], said: str) -> None:
    config = {**ViTImageProcessorPil(size={"height": 48, "width": 48}).to_dict(), **change}
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(ToolError, match=said):
        from_huggingface(config)


def test_an_old_configuration_with_one_number_is_a_square_for_vit_and_the_shorter_side_for_dinov2() -> None:
    old = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, "size": 48}
    assert from_huggingface({**old, "feature_extractor_type": "ViTFeatureExtractor"})["resize"] == [48, 48]
    cropped = {"image_processor_type": "BitImageProcessor", "do_center_crop": True, "crop_size": 40}
    assert from_huggingface({**old, **cropped})["resize"] == 48


def test_a_cfg_of_one_channel_is_a_view_of_greys() -> None:
    block = from_timm({"input_size": (1, 48, 48), "mean": (0.5,), "std": (0.25,)})
    assert (block["channels"], block["mean"], block["std"]) == (1, [0.5], [0.25])
