"""The pictures of heatserve: bytes become tensors, and maps become pictures. No network and no HTTP is known here."""

from __future__ import annotations

from .boxes import largest_box
from .colour import COLORMAPS, colour
from .cost import MAX_DECODE_MS, refuse_dear, shown_ms
from .decode import Photograph, Picture, decode, shown_size
from .display import RULES, ZERO, grey, positive_part, scale_of, signed_grey
from .encode import jpeg_file, npy_file, png_file, webp_file
from .errors import ImageTooLarge, UnreadableImage
from .geometry import Geometry, plan
from .header import FORMATS, Header, Opened, inspect, opened
from .overlay import overlay
from .preprocess import INTERPOLATIONS, MODES, ORDERS, ORIENTATIONS, Preprocess
from .sheet import Tile, sheet

__all__ = [
    "COLORMAPS",
    "FORMATS",
    "INTERPOLATIONS",
    "MAX_DECODE_MS",
    "MODES",
    "ORDERS",
    "ORIENTATIONS",
    "RULES",
    "ZERO",
    "Geometry",
    "Header",
    "ImageTooLarge",
    "Opened",
    "Photograph",
    "Picture",
    "Preprocess",
    "Tile",
    "UnreadableImage",
    "colour",
    "decode",
    "grey",
    "inspect",
    "jpeg_file",
    "largest_box",
    "npy_file",
    "opened",
    "overlay",
    "plan",
    "png_file",
    "positive_part",
    "refuse_dear",
    "scale_of",
    "sheet",
    "shown_ms",
    "shown_size",
    "signed_grey",
    "webp_file",
]
