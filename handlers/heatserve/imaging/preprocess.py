"""Preprocessing: a picture becomes the tensor that the model sees, equal to that of torchvision's transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .cost import GREYED, RESIZE, RESIZED, TURNED, VIEWED, WITH_ALPHA
from .decode import Picture
from .errors import ImageTooLarge
from .geometry import Geometry, plan
from .modes import on_white
from .orientation import upright_image

INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
ORIENTATIONS = ("ignore", "apply")
#: Pillow's modes by their number of channels: grey, grey with alpha, colour, colour with alpha.
MODES: Mapping[int, str] = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
ORDERS = ("rgb", "bgr")

Size = Union[int, tuple[int, int]]  # a side, or (height, width)


@dataclass(frozen=True)
class Preprocess:
    """The steps from a picture to the model's view: resize, crop or pad the centre, normalise.

    The defaults are those of TorchServe's `image_classifier`.
    resize: the shorter side in pixels, or (height, width), to which the picture is stretched; None leaves the size.
    crop: a side in pixels, or (height, width); None leaves the crop out.
    mean, std: of the channels in 0..1, one number for each.
    interpolation: a name in INTERPOLATIONS.
    orientation: "apply" turns the picture upright first; "ignore" shows the rows as stored.
    letterbox: whether the picture keeps its proportions within `resize` (height, width), and is padded on all sides.
    fill: the padding's colour, 0..255 in each channel; None is black, without alpha.
    channels: a number in MODES. Greys are Pillow's (ITU-R BT.601), made before the picture is resized.
    order: of three channels, a name in ORDERS.

    Raises ValueError for a setting that is not allowed.
    """

    resize: Optional[Size] = 256
    crop: Optional[Size] = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    orientation: str = "ignore"
    letterbox: bool = False
    fill: Optional[tuple[int, ...]] = None
    channels: int = 3
    order: str = "rgb"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}; allowed: {', '.join(INTERPOLATIONS)}.")
        if self.orientation not in ORIENTATIONS:
            raise ValueError(f"orientation is {self.orientation!r}; allowed: {', '.join(ORIENTATIONS)}.")
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if any(side < 1 for side in ((size,) if isinstance(size, int) else size or ())):
                raise ValueError(f"{name} is {size}; allowed: 1 and more, or null.")
        if self.channels not in MODES:
            raise ValueError(f"channels is {self.channels}; allowed: {', '.join(map(str, MODES))}.")
        if self.order not in ORDERS or (self.order != "rgb" and self.channels != 3):
            raise ValueError(f"order is {self.order!r}; allowed: {', '.join(ORDERS)}, bgr for 3 channels only.")
        if len(self.mean) != self.channels or len(self.std) != self.channels or 0 in self.std:
            raise ValueError(
                f"mean is {self.mean}, std is {self.std}; allowed: {self.channels} numbers each, no std of 0."
            )
        if self.letterbox and not isinstance(self.resize, tuple):
            raise ValueError(f"letterbox is true and resize is {self.resize}; allowed: resize as (height, width).")
        fill = self.fill or (0,) * self.channels
        if len(fill) != self.channels or not all(0 <= level <= 255 for level in fill):
            raise ValueError(f"fill is {self.fill}; allowed: {self.channels} whole numbers from 0 to 255.")

    @property
    def view(self) -> tuple[int, int] | None:
        """The height and width of every view; None if they depend on the picture."""
        if self.crop is not None:
            return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    @property
    def alpha(self) -> bool:
        """Whether the model sees the alpha of a picture."""
        return MODES[self.channels].endswith("A")

    def geometry(self, width: int, height: int, orientation: int = 1) -> Geometry:
        """The place of the view on a picture of this stored size."""
        return plan(width, height, self.resize, self.crop, orientation, self.letterbox)

    def tensor(self, picture: Picture, max_resized_pixels: int) -> tuple[torch.Tensor, Geometry]:
        """The model's view, float32 [channels, H, W] on the CPU, and its geometry on the picture.

        picture: decoded with alpha if the model sees alpha.

        Raises ImageTooLarge, before anything is resized, if the resized picture or the view would have
        more than `max_resized_pixels` pixels.
        """
        image, orientation = picture.image, picture.orientation
        if self.orientation == "apply":
            image, orientation = upright_image(image, orientation), 1
        geometry = self.geometry(*image.size, orientation)
        self.check(image.width, image.height, max_resized_pixels)

        if image.mode == "RGBA" and not self.alpha:
            image = on_white(image)
        if image.mode != MODES[self.channels]:
            image = image.convert(MODES[self.channels])
        resized = (geometry.resized_width, geometry.resized_height)
        if resized != image.size:
            image = image.resize(resized, INTERPOLATIONS[self.interpolation])
        return self._normalised(self._placed(image, geometry)), geometry

    def picture(self, view: NDArray[np.float32]) -> Image.Image:
        """The 8-bit RGB picture of a view (channels, H, W): the normalisation is undone and values are clipped.

        Transparent parts are white.
        """
        mean, std = (np.asarray(row, np.float32).reshape(-1, 1, 1) for row in (self.mean, self.std))
        pixels = np.clip((view * std + mean) * 255, 0, 255).round().astype(np.uint8)
        if self.order == "bgr":
            pixels = pixels[::-1]
        bands = [Image.fromarray(np.ascontiguousarray(plane)) for plane in pixels]
        image = Image.merge(MODES[self.channels], bands)
        return on_white(image) if self.alpha else image.convert("RGB")

    def check(self, width: int, height: int, max_resized_pixels: int) -> None:
        """Raises ImageTooLarge if the resized picture or the view would have more than `max_resized_pixels` pixels.

        Width and height may be exchanged: an orientation does not change the answer.
        """
        for resized_width, resized_height in self._sizes(width, height):
            if resized_width * resized_height > max_resized_pixels:
                raise ImageTooLarge(
                    f"The image of {width} x {height} pixels would be resized to"
                    f" {resized_width} x {resized_height}; at most {max_resized_pixels} pixels are allowed."
                )

    def cost_ms(self, width: int, height: int) -> float:
        """The nominal milliseconds of one core of `tensor` for a picture of this size."""
        turned = TURNED if self.orientation == "apply" else 0.0
        read = RESIZE[self.interpolation] if self.resize is not None else 0.0
        converted = (GREYED if self.channels < 3 else 0.0) + (WITH_ALPHA if self.alpha else 0.0)
        (across, down), *resized = self._sizes(width, height)
        written = across * down * VIEWED + sum(w * h * RESIZED for w, h in resized)
        return (width * height * (turned + read + converted) + written) / 1e6

    def _sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """The width and height of the view, and of the resized picture if there is one."""
        geometry = self.geometry(width, height)
        view = [(geometry.crop_width, geometry.crop_height)]
        return view if self.resize is None else [*view, (geometry.resized_width, geometry.resized_height)]

    def _placed(self, image: Image.Image, geometry: Geometry) -> Image.Image:
        """The view's part of a resized picture, with padding around it where the view is larger."""
        left, top = geometry.crop_left, geometry.crop_top
        size = (geometry.crop_width, geometry.crop_height)
        if (left, top) == (0, 0) and size == image.size:
            return image
        if not any(self.fill or ()):
            return image.crop((left, top, left + size[0], top + size[1]))
        view = Image.new(image.mode, size, self.fill)
        view.paste(image, (-left, -top))
        return view

    def _normalised(self, image: Image.Image) -> torch.Tensor:
        # This order of operations is torchvision's. Any other differs in the last bit.
        pixels = torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1)
        if self.order == "bgr":
            pixels = pixels.flip(0)
        mean, std = (torch.tensor(row, dtype=torch.float32).view(-1, 1, 1) for row in (self.mean, self.std))
        return pixels.contiguous().to(torch.float32).div_(255).sub_(mean).div_(std)
