"""The reduction of a photograph to the size at which an answer shows it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

#: A photograph whose sides are at least as many times larger is first reduced by a whole factor, by means of blocks.
_GAP = 1.45
#: The most pixels of which a copy is made.
_MOST = 9_000_000
#: Processors on which torch has its own code for bytes, three times as fast as Pillow's. On others it is slower.
_FAST = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at a smaller size, by cubic interpolation with a low-pass, as Pillow's `resize` does it.

    size: (width, height).
    """
    blocks = _by_blocks(image, int(max(image.size) / max(size) / _GAP)) if _FAST and image.mode == "RGB" else None
    if blocks is None or blocks.width * blocks.height > _MOST:
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    # The batch's axis comes before the permutation: otherwise torch answers in planes, which Pillow reads slowly.
    pixels = torch.from_numpy(np.array(blocks))[None].permute(0, 3, 1, 2)
    small = interpolate(pixels, size=size[::-1], mode="bicubic", antialias=True)[0]
    return Image.fromarray(small.permute(1, 2, 0).numpy())


def _by_blocks(image: Image.Image, factor: int) -> Image.Image:
    """The means of blocks. Pixels at the border that fill no block are left out, alike on both sides."""
    if factor < 2 or min(image.size) < 2 * factor:
        return image
    width, height = image.size
    left, top = width % factor // 2, height % factor // 2
    return image.reduce(factor, (left, top, left + width // factor * factor, top + height // factor * factor))
