"""The block `preprocess:` from the preprocessing that timm and Hugging Face write beside a network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from heatserve_tools.errors import ToolError

#: Pillow's numbers of the interpolations, as Hugging Face writes them.
_RESAMPLE: Mapping[int, str] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_NAMES = ("nearest", "bilinear", "bicubic", "lanczos")
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
#: From this side on ConvNeXt's processor stretches a picture, and does not crop it.
_CONVNEXT_STRETCHES = 384
#: The processors that the tests compare with. One number as `size` is a square for some, the shorter side for others.
_SQUARES, _SHORTEST = ("ViT", "DeiT", "Beit"), ("Bit", "ConvNext", "MobileViT")
_KIND = re.compile(r"(\w+?)(ImageProcessor|FeatureExtractor)(Fast|Pil)?")
#: The steps of Hugging Face processors that change the picture in a way that has no setting here.
_UNKNOWN_STEPS = ("do_pad", "do_thumbnail", "do_align_long_axis", "do_split_image", "rescale_offset", "include_top")


def from_timm(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The block of a timm `pretrained_cfg`, with the view of `timm.data.create_transform(is_training=False)`.

    Raises ToolError for a setting that has no equal here, and names it.
    """
    channels, height, width = cfg.get("input_size") or (3, 224, 224)
    share = cfg.get("crop_pct") or 0.875
    mode = cfg.get("crop_mode") or "center"
    scaled = (math.floor(height / share), math.floor(width / share))
    if mode == "center" and scaled[0] != scaled[1]:
        raise ToolError(
            f"crop_mode is 'center' for a view of {height} x {width}, which heatserve cannot resize to: write "
            "preprocess: by hand, with resize: [height, width] for a stretched view or the shorter side and crop"
        )
    if mode not in ("center", "squash", "border"):
        raise ToolError(f"crop_mode is {mode!r}; center, squash and border are known: write preprocess: by hand")
    block: dict[str, Any] = {"resize": scaled[0] if mode == "center" else [*scaled], "crop": _side(height, width)}
    block["interpolation"] = _interpolation(cfg.get("interpolation") or "bicubic")
    for name in ("mean", "std"):
        block[name] = _channels(name, cfg.get(name) or _IMAGENET[name], channels)
    if mode == "border":
        block |= {"letterbox": True, "fill": [round(255 * level) for level in block["mean"]]}
    return block if channels == 3 else {**block, "channels": channels}


def from_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """The block of a `preprocessor_config.json`.

    Normalisation is one step here: a factor other than 1/255, or steps that are off, are folded into mean and std.
    Where the sides differ by an odd number, this crop may start one pixel beside the processor's.

    Raises ToolError for a setting that has no equal here, and names it.
    """
    for step in _UNKNOWN_STEPS:
        if config.get(step):
            raise ToolError(f"{step} is {config[step]!r}, which heatserve cannot do: write preprocess: by hand")
    if "resample" in config and config["resample"] not in _RESAMPLE:
        raise ToolError(f"resample is {config['resample']!r}; allowed: 0, 1, 2 and 3: write preprocess: by hand")
    kind = _kind(config)
    resize, crop = _sizes(kind, config)
    block: dict[str, Any] = {"resize": resize, "crop": crop, "interpolation": _RESAMPLE[_resample(config)]}
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    if not factor > 0:
        raise ToolError(f"rescale_factor is {factor}; a positive number is allowed")
    # MobileViT's processor never normalises, whatever its configuration says.
    normalises = kind != "MobileViT" and config.get("do_normalize", True)
    if normalises and ("image_mean" not in config or "image_std" not in config):
        raise ToolError("do_normalize is true without image_mean and image_std: write preprocess: by hand")
    for name, key, unused in (("mean", "image_mean", 0.0), ("std", "image_std", 1.0)):
        numbers = _channels(key, config[key] if normalises else [unused], 3)
        block[name] = [_folded(number, factor) for number in numbers]
    if config.get("do_flip_channel_order"):
        block["order"] = "bgr"
    return block


def _kind(config: Mapping[str, Any]) -> str:
    """The name of the processor without its ending."""
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    found = _KIND.fullmatch(name)
    if found is None or found[1] not in _SQUARES + _SHORTEST:
        raise ToolError(
            f"image_processor_type is {name!r}; those of {', '.join(_SQUARES + _SHORTEST)} are known: write "
            "preprocess: by hand"
        )
    return found[1]


def _sizes(kind: str, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """`resize` and `crop` of a Hugging Face processor."""
    size = config.get("size")
    shortest, pair = _size("size", size, squares=kind in _SQUARES)
    if not config.get("do_resize", True):
        shortest = pair = None
    if kind == "ConvNext" and shortest:
        if shortest >= _CONVNEXT_STRETCHES:
            return [shortest, shortest], None
        return int(shortest / config.get("crop_pct", 224 / 256)), shortest
    if not config.get("do_center_crop"):
        if pair is None:
            raise ToolError(f"size is {size!r} without a centre crop, so that views differ in size: say crop_size")
        return [*pair], None
    side, crop = _size("crop_size", config.get("crop_size"), squares=True)
    if crop is None:
        raise ToolError(f"crop_size is {side or config.get('crop_size')!r}; a height and a width are needed")
    return [*pair] if pair else shortest, _side(*crop)


def _size(name: str, size: Any, squares: bool) -> tuple[int | None, tuple[int, int] | None]:
    """The shorter side, or the height and width. squares: whether one number is a square, not the shorter side."""
    if size is None:
        return None, None
    if isinstance(size, int):
        return (None, (size, size)) if squares else (size, None)
    if isinstance(size, Mapping):
        given = {key: value for key, value in size.items() if value is not None}
        if set(given) == {"shortest_edge"}:
            return int(given["shortest_edge"]), None
        if set(given) == {"height", "width"}:
            return None, (int(given["height"]), int(given["width"]))
    raise ToolError(f"{name} is {size!r}; shortest_edge, or height and width, are known: write preprocess: by hand")


def _resample(config: Mapping[str, Any]) -> int:
    if "resample" not in config and config.get("do_resize", True):
        raise ToolError("resample is missing, and processors differ in their default: add it to the configuration")
    return int(config.get("resample", 2))


def _folded(number: float, factor: float) -> float:
    """A mean or deviation of values x `factor`, for values / 255."""
    return number if math.isclose(factor, 1 / 255, rel_tol=1e-6) else number / (255 * factor)


def _interpolation(name: str) -> str:
    if name not in _NAMES:
        raise ToolError(f"interpolation is {name!r}; allowed: {', '.join(_NAMES)}: write preprocess: by hand")
    return name


def _channels(name: str, numbers: Sequence[float], channels: int) -> list[float]:
    if len(numbers) not in (1, channels):
        raise ToolError(f"{name} has {len(numbers)} numbers for {channels} channels: write preprocess: by hand")
    return [float(number) for number in numbers] * (channels if len(numbers) == 1 else 1)


def _side(height: int, width: int) -> Any:
    return height if height == width else [height, width]
