"""The geometry of the model's view: coordinates from the stored picture over the resized one to the crop, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .orientation import Box, upright_array, upright_box, upright_size
from .resampling import applied, resize_weights, sample_weights, sampled


@dataclass(frozen=True)
class Geometry:
    """The place of the model's view on a picture.

    width, height: of the stored picture, in pixels.
    resized_width, resized_height: of the picture after resizing.
    crop_left, crop_top: the corner of the view, in resized pixels. It is negative if the crop pads.
    crop_width, crop_height: of the view.
    orientation: the EXIF orientation that a viewer still applies to the stored picture.
    letterbox: whether the view shows the whole picture with padding around it.
    """

    width: int
    height: int
    resized_width: int
    resized_height: int
    crop_left: int
    crop_top: int
    crop_width: int
    crop_height: int
    orientation: int = 1
    letterbox: bool = False

    def seen(self) -> tuple[int, int, int, int]:
        """The part that the model saw: (x0, y0, x1, y1) in pixels of the upright photograph at its original size."""
        return self.box(0, 0, self.crop_width, self.crop_height)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int]:
        """The box of view pixels in whole pixels of the upright photograph at its original size.

        Right and bottom are exclusive. The box is clipped to the photograph. A box that overlaps it keeps at least one
        pixel. A box in the crop's padding comes back empty (x0 == x1 or y0 == y1).
        """
        horizontal, vertical = self.width / self.resized_width, self.height / self.resized_height
        stored: Box = (
            (x0 + self.crop_left) * horizontal,
            (y0 + self.crop_top) * vertical,
            (x1 + self.crop_left) * horizontal,
            (y1 + self.crop_top) * vertical,
        )
        left, top, right, bottom = upright_box(stored, self.width, self.height, self.orientation)
        width, height = upright_size(self.width, self.height, self.orientation)
        (left, right), (top, bottom) = _whole(left, right, width), _whole(top, bottom, height)
        return left, top, right, bottom

    def on_photograph(self) -> tuple[slice, slice]:
        """The rows and columns of the view that pictures of a map are scaled by: all, but for a letterbox's padding."""
        if not self.letterbox:
            return slice(None), slice(None)
        rows = slice(max(0, -self.crop_top), max(0, min(self.crop_height, self.resized_height - self.crop_top)))
        columns = slice(max(0, -self.crop_left), max(0, min(self.crop_width, self.resized_width - self.crop_left)))
        return rows, columns

    def on_view(self, view_map: NDArray[Any]) -> NDArray[np.float32]:
        """A map [h, w] of any resolution on the view's own pixels, bilinear (align_corners=False).

        The result is float32 [crop_height, crop_width]. Values that are not finite count as 0.
        """
        down = resize_weights(view_map.shape[0], self.crop_height)
        across = resize_weights(view_map.shape[1], self.crop_width)
        return applied(down, _finite(view_map), across)

    def of_blocks(self, blocks: NDArray[Any], side: int) -> NDArray[Any]:
        """One value for each block of side x side view pixels, [h, w], on the view's own pixels: that of their block.

        The blocks start at the upper left corner of the view. Those at its right and lower edges may be smaller.
        """
        assert blocks.shape == (-(-self.crop_height // side), -(-self.crop_width // side)), "blocks of another view"
        return blocks.repeat(side, 0).repeat(side, 1)[: self.crop_height, : self.crop_width]

    def project(self, view_map: NDArray[Any], width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A map [h, w] of the view, of any resolution, on an upright picture of `width` x `height` pixels.

        The result is the map, float32 [height, width], and a mask, bool [height, width], of the pixels whose centre
        the model saw. The map is 0 outside the mask. Values that are not finite count as 0.

        The map is first brought to the view's resolution, as in `on_view`, and from there to the picture by
        the exact affine coordinates of the pixel centres. If the picture is coarser, a low-pass is applied.
        """
        part, place = self.on_picture(view_map, width, height)
        whole, seen = np.zeros((height, width), np.float32), np.zeros((height, width), np.bool_)
        whole[place], seen[place] = part, True
        return whole, seen

    def on_picture(
        self, view_map: NDArray[Any], width: int, height: int
    ) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
        """The part of `project` that the model saw, float32, and the rows and columns of the picture that it fills."""
        columns, rows = upright_size(width, height, self.orientation)
        down, seen_rows = _axis(view_map.shape[0], self.crop_height, self.crop_top, self.resized_height, rows)
        across, seen_columns = _axis(view_map.shape[1], self.crop_width, self.crop_left, self.resized_width, columns)
        part = upright_array(applied(down, _finite(view_map), across), self.orientation)
        stored = (seen_columns.start, seen_rows.start, seen_columns.stop, seen_rows.stop)
        left, top, right, bottom = map(int, upright_box(stored, columns, rows, self.orientation))
        return part, (slice(top, bottom), slice(left, right))


def plan(
    width: int,
    height: int,
    resize: int | tuple[int, int] | None,
    crop: int | tuple[int, int] | None,
    orientation: int = 1,
    letterbox: bool = False,
) -> Geometry:
    """The geometry of torchvision's `Resize(resize)` and `CenterCrop(crop)` on a picture of this stored size.

    resize: the length of the shorter side, or (height, width); None leaves the size as it is.
    crop: a side, or (height, width); None leaves the crop out.
    letterbox: whether the picture keeps its proportions within `resize` (height, width), and is padded to it if there
    is no crop. The size is that of timm's `ResizeKeepRatio(resize, longest=1)`.
    """
    resized_width, resized_height = _resized(width, height, resize, letterbox)
    if crop is None:
        crop = resize if letterbox and isinstance(resize, tuple) else (resized_height, resized_width)
    crop_height, crop_width = (crop, crop) if isinstance(crop, int) else crop
    return Geometry(
        width=width,
        height=height,
        resized_width=resized_width,
        resized_height=resized_height,
        crop_left=_centred(resized_width, crop_width),
        crop_top=_centred(resized_height, crop_height),
        crop_width=crop_width,
        crop_height=crop_height,
        orientation=orientation,
        letterbox=letterbox,
    )


def _resized(width: int, height: int, resize: int | tuple[int, int] | None, letterbox: bool) -> tuple[int, int]:
    """The width and height after resizing."""
    if resize is None:
        return width, height
    if isinstance(resize, int):
        longer = int(resize * max(width, height) / min(width, height))
        return (resize, longer) if width <= height else (longer, resize)
    if not letterbox:
        return resize[1], resize[0]
    ratio = max(height / resize[0], width / resize[1])
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _centred(length: int, crop: int) -> int:
    """The start of a CenterCrop. Padding has its smaller half in front; cropping rounds halves to even."""
    return -((crop - length) // 2) if crop > length else round((length - crop) / 2)


def _whole(start: float, end: float, length: int) -> tuple[int, int]:
    start, end = min(max(start, 0.0), length), min(max(end, 0.0), length)
    first, last = math.floor(start + 0.5), math.floor(end + 0.5)
    if first == last and start < end:
        first = min(math.floor((start + end) / 2), length - 1)
        last = first + 1
    return first, last


def _axis(count: int, view: int, offset: int, resized: int, size: int) -> tuple[NDArray[np.float32], slice]:
    """One axis of `project`: weights [seen pixels, count] of the map's values, and the slice of the seen pixels."""
    step = resized / size  # view pixels per pixel of the picture
    centres = (np.arange(size) + 0.5) * step - offset
    inside = np.flatnonzero((centres >= 0) & (centres < view))
    seen = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)
    if count == view:
        return sample_weights(view, centres[seen], step).astype(np.float32), seen
    return sampled(resize_weights(count, view), centres[seen], step), seen


def _finite(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.where(np.isfinite(values), values, 0).astype(np.float32, copy=False)
