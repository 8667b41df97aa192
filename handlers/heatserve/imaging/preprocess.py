"""Preprocessing: a picture becomes the tensor that the model sees, equal to that of torchvision's transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .cost import RESIZE, RESIZED, TURNED, VIEWED
from .decode import Picture
from .errors import ImageTooLarge
from .geometry import Geometry, plan
from .orientation import upright_image

INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
ORIENTATIONS = ("ignore", "apply")


@dataclass(frozen=True)
class Preprocess:
    """The steps from a picture to the model's view: resize, crop the centre, normalise.

    The defaults are those of TorchServe's `image_classifier`.
    resize: the shorter side in pixels; None leaves the size as it is.
    crop: a side in pixels, or (height, width); None leaves the crop out.
    mean, std: of the channels of RGB in 0..1.
    interpolation: a name in INTERPOLATIONS.
    orientation: "apply" turns the picture upright first; "ignore" shows the rows as stored.

    Raises ValueError for a setting that is not allowed.
    """

    resize: int | None = 256
    crop: int | tuple[int, int] | None = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    orientation: str = "ignore"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}; allowed: {', '.join(INTERPOLATIONS)}.")
        if self.orientation not in ORIENTATIONS:
            raise ValueError(f"orientation is {self.orientation!r}; allowed: {', '.join(ORIENTATIONS)}.")
        if self.resize is not None and self.resize < 1:
            raise ValueError(f"resize is {self.resize}; allowed: 1 and more, or null.")
        sides = (self.crop,) if isinstance(self.crop, int) else self.crop or ()
        if any(side < 1 for side in sides):
            raise ValueError(f"crop is {self.crop}; allowed: 1 and more, or null.")
        if len(self.mean) != 3 or len(self.std) != 3 or 0 in self.std:
            raise ValueError(f"mean is {self.mean}, std is {self.std}; allowed: three numbers each, no std of 0.")

    def tensor(self, picture: Picture, max_resized_pixels: int) -> tuple[torch.Tensor, Geometry]:
        """The model's view, float32 [3, H, W] on the CPU, and its geometry on the picture.

        Raises ImageTooLarge, before anything is resized, if the resized picture or the view would have
        more than `max_resized_pixels` pixels.
        """
        image, orientation = picture.image, picture.orientation
        if self.orientation == "apply":
            image, orientation = upright_image(image, orientation), 1
        geometry = plan(*image.size, self.resize, self.crop, orientation)
        self.check(image.width, image.height, max_resized_pixels)

        resized = (geometry.resized_width, geometry.resized_height)
        if resized != image.size:
            image = image.resize(resized, INTERPOLATIONS[self.interpolation])
        if self.crop is not None:
            left, top = geometry.crop_left, geometry.crop_top
            image = image.crop((left, top, left + geometry.crop_width, top + geometry.crop_height))
        return self._normalised(image), geometry

    def picture(self, view: NDArray[np.float32]) -> Image.Image:
        """The 8-bit RGB picture of a view (3, H, W): the normalisation is undone and values are clipped."""
        mean, std = (np.asarray(row, np.float32).reshape(3, 1, 1) for row in (self.mean, self.std))
        pixels = np.clip((view * std + mean) * 255, 0, 255).round().astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))

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
        (across, down), *resized = self._sizes(width, height)
        written = across * down * VIEWED + sum(w * h * RESIZED for w, h in resized)
        return (width * height * (turned + read) + written) / 1e6

    def _sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """The width and height of the view, and of the resized picture if there is one."""
        geometry = plan(width, height, self.resize, self.crop)
        view = [(geometry.crop_width, geometry.crop_height)]
        return view if self.resize is None else [*view, (geometry.resized_width, geometry.resized_height)]

    def _normalised(self, image: Image.Image) -> torch.Tensor:
        # This order of operations is torchvision's. Any other differs in the last bit.
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        mean, std = (torch.tensor(row, dtype=torch.float32).view(3, 1, 1) for row in (self.mean, self.std))
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
