"""The cost of a picture, computed from its header: nominal milliseconds of one core, and bytes of memory.

`scripts/fuzz --cost --table` measures the factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import ImageTooLarge
from .structure import Structure

#: Milliseconds that one picture may take by default: enough for a progressive JPEG of 50 megapixels and 20 MB.
MAX_DECODE_MS = 1_500.0
#: Milliseconds that each 100 kB of a file may take. A smaller file counts as 100 kB.
MS_PER_100_KB = 400.0
#: Every picture takes at least this.
_BASE_MS = 0.3
_BASE_BYTES = 3_000_000


@dataclass(frozen=True)
class Factors:
    """The factors of one decoder.

    pixel: ns for each pixel.
    sent: ns for each byte of the file.
    passed: ns for each pixel and pass. A pass is a scan of a JPEG, or a byte that a pixel is stored in.
    part: ns for each segment, chunk or strip.
    held: bytes of memory for each pixel.
    """

    pixel: float
    sent: float
    passed: float = 0.0
    part: float = 0.0
    held: float = 4.0


#: The factors by format and coding.
DECODERS: Mapping[tuple[str, str], Factors] = {
    ("JPEG", "baseline"): Factors(pixel=2.5, sent=10, passed=0.7, part=1_000),
    ("JPEG", "progressive"): Factors(pixel=2.5, sent=25, passed=0.7, part=1_000, held=11),
    ("JPEG", "arithmetic"): Factors(pixel=5, sent=80, passed=3, part=1_000, held=12),
    ("JPEG", "lossless"): Factors(pixel=5, sent=25, passed=3, part=1_000, held=12),
    ("PNG", "plain"): Factors(pixel=1, sent=22, passed=1, part=3_000),
    ("PNG", "interlaced"): Factors(pixel=4, sent=22, passed=1.5, part=3_000, held=8),
    ("WEBP", "lossy"): Factors(pixel=10, sent=60, part=300, held=16),
    ("WEBP", "lossy with alpha"): Factors(pixel=16, sent=60, part=300, held=16),
    ("WEBP", "lossless"): Factors(pixel=10, sent=18, part=300, held=16),
    ("GIF", "plain"): Factors(pixel=2, sent=15, part=1_000),
    ("BMP", "plain"): Factors(pixel=1.5, sent=1),
    ("TIFF", "raw"): Factors(pixel=1, sent=1, passed=0.5, part=12_000),
    ("TIFF", "packbits"): Factors(pixel=1, sent=1.5, passed=0.5, part=2_000),
    ("TIFF", "lzw"): Factors(pixel=2, sent=6, passed=1, part=2_000),
    ("TIFF", "deflate"): Factors(pixel=1, sent=15, passed=1, part=5_000),
    ("TIFF", "zstd"): Factors(pixel=1, sent=5, passed=1, part=5_000),
    ("TIFF", "lzma"): Factors(pixel=2, sent=60, passed=3, part=20_000),
    ("TIFF", "fax"): Factors(pixel=3, sent=30, passed=1, part=5_000),
    ("TIFF", "jpeg"): Factors(pixel=2.5, sent=25, passed=0.7, part=20_000, held=12),
    ("TIFF", "webp"): Factors(pixel=12, sent=60, passed=1, part=20_000, held=20),
}
#: The factors of codings that are not in the table.
_OTHER = Factors(pixel=30, sent=60, passed=10, part=20_000, held=24)


@dataclass(frozen=True)
class Conversion:
    """The cost of making 8-bit RGB of a mode.

    ns: time for each pixel.
    held: further bytes of memory for each pixel.
    """

    ns: float
    held: float


#: The conversions by Pillow's mode. "transparent" stands for all other modes, and for a transparent palette or colour.
CONVERSIONS: Mapping[str, Conversion] = {
    "RGB": Conversion(0, 0),
    "L": Conversion(1, 1),
    "1": Conversion(1, 1),
    "P": Conversion(1, 1),
    "CMYK": Conversion(6, 4),
    "YCbCr": Conversion(6, 4),
    "LAB": Conversion(25, 4),
    "F": Conversion(15, 4),
    "I": Conversion(6, 4),
    "RGBA": Conversion(5, 4),
    "transparent": Conversion(6, 4),
}

#: Resizing to the model's size: ns for each pixel of the picture, by interpolation.
RESIZE: Mapping[str, float] = {"nearest": 1.0, "bilinear": 3.0, "bicubic": 5.0, "lanczos": 8.0}
#: Resizing, further: ns for each pixel of the resized picture, and for each pixel of the view.
RESIZED, VIEWED = 10.0, 12.0
#: Making greys of RGB, and resizing with alpha, further: ns for each pixel of the picture.
GREYED, WITH_ALPHA = 2.0, 8.0
#: The copy that an answer shows: ns for each pixel of the picture. A large picture is first reduced by a whole factor.
SHOWN, SHOWN_REDUCED = 6.0, 3.0
#: Turning a picture upright: ns for each pixel.
TURNED = 4.0


@dataclass(frozen=True)
class Cost:
    """The nominal milliseconds of one core, and the peak of memory in bytes."""

    ms: float
    peak_bytes: int


def decoding(form: str, mode: str, pixels: int, sent: int, structure: Structure) -> Cost:
    """The cost of making 8-bit RGB of a file of `sent` bytes from which the decoder computes `pixels`."""
    factors = DECODERS.get((form, structure.coding), _OTHER)
    conversion = _conversion(mode)
    each = factors.pixel + factors.passed * structure.passes + conversion.ns + TURNED * structure.turned
    held = factors.held + conversion.held + 4 * structure.turned
    ns = pixels * each + sent * factors.sent + structure.parts * factors.part
    return Cost(_BASE_MS + ns / 1e6, round(_BASE_BYTES + pixels * held + 2 * sent))


def shown_ms(width: int, height: int, max_side: int | None) -> float:
    """The nominal milliseconds of `Picture.upright(max_side)` for a picture of this size."""
    longest = max(width, height)
    if max_side is None or longest <= max_side:
        return width * height * TURNED / 1e6
    shown = width * height * (max_side / longest) ** 2
    return (width * height * (SHOWN if longest < 4 * max_side else SHOWN_REDUCED) + shown * TURNED) / 1e6


def allowed_ms(sent: int, max_ms: float) -> float:
    """The milliseconds that a file of `sent` bytes may cost: 400 for each 100 kB, 400 at least, `max_ms` at most.

    A small file that takes long to decode is hardly a photograph.
    """
    return min(max_ms, MS_PER_100_KB * max(1.0, sent / 100_000))


def refuse_dear(ms: float, sent: int, max_ms: float) -> None:
    """Raises ImageTooLarge if a picture of `sent` bytes takes more milliseconds than it may (`allowed_ms`)."""
    allowed = allowed_ms(sent, max_ms)
    if ms > allowed:
        raise ImageTooLarge(
            f"The image would take {ms:.0f} ms to decode and resize; {allowed:.0f} ms are allowed for its {sent} bytes."
        )


def _conversion(mode: str) -> Conversion:
    if mode.startswith("I"):
        return CONVERSIONS["I"]
    return CONVERSIONS.get(mode, CONVERSIONS["transparent"])
