"""The reduction of a photograph to the size at which an answer shows it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

#: A photograph whose sides are at least as many times larger is first reduced by a whole factor, by means of blocks.
_GAP = 1.45
#: The longest side, in pixels, from which on the fast way is worth its differences: torch goes along rows first. Newer
#: versions of Pillow sometimes go along columns first, and both cut values off in between.
_LEAST = 256
#: The most pixels of which a copy is made.
_MOST = 9_000_000
#: Processors on which torch has its own code for bytes, three times as fast as Pillow's. On others it is slower.
_FAST = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at a smaller size, by cubic interpolation with a low-pass, as Pillow's `resize` does it.

    size: (width, height).
    """
    factor = int(max(image.size) / max(size) / _GAP)
    if not (_FAST and image.mode == "RGB" and factor and max(size) >= _LEAST):
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    if min(image.size) < 2 * factor:
        factor = 1
    # The last blocks may be cut off by the border: the picture ends within them.
    blocks = image.reduce(factor) if factor > 1 else image
    if blocks.width * blocks.height > _MOST:
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    # The batch's axis comes before the permutation: otherwise torch answers in planes, which Pillow reads slowly.
    pixels = torch.from_numpy(np.array(blocks))[None].permute(0, 3, 1, 2)
    shares = [small * factor / large * (1 + 1e-9) for small, large in zip(size, image.size)]
    small = interpolate(pixels, scale_factor=shares[::-1], mode="bicubic", antialias=True)[0]
    return Image.fromarray(small[:, : size[1], : size[0]].permute(1, 2, 0).numpy())
