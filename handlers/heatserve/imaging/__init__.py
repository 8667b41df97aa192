"""Bytes to tensors, and maps to pictures. Knows no model and no HTTP."""

from __future__ import annotations

from .boxes import largest_box
from .colour import COLORMAPS, colour
from .decode import FORMATS, Picture, decode
from .display import RULES, grey, positive_part, scale_of
from .encode import jpeg, npy, png, webp
from .errors import ImageTooLarge, UnreadableImage
from .geometry import Geometry, plan
from .overlay import overlay
from .preprocess import INTERPOLATIONS, ORIENTATIONS, Preprocess

__all__ = [
    "COLORMAPS",
    "FORMATS",
    "INTERPOLATIONS",
    "ORIENTATIONS",
    "RULES",
    "Geometry",
    "ImageTooLarge",
    "Picture",
    "Preprocess",
    "UnreadableImage",
    "colour",
    "decode",
    "grey",
    "jpeg",
    "largest_box",
    "npy",
    "overlay",
    "plan",
    "png",
    "positive_part",
    "scale_of",
    "webp",
]
