"""Pictures in every form, size and orientation, and those that are none."""

from __future__ import annotations

from devtools.recorded import pictures
from devtools.recorded.archives import VIEW, Scene
from devtools.recorded.cases.case import Case, alone
from devtools.recorded.pictures import picture
from devtools.recorded.rows import Row, member, raw

SMALL = Scene()
APPLY = Scene(preprocess={**VIEW, "orientation": "apply"})
SIZES = ((1, 1), (1, 100), (100, 1), (1, 1000), (31, 33), (36, 36), (32, 32), (640, 427), (427, 640), (1500, 90))


def cases() -> list[Case]:
    found = []
    for name, content in pictures.forms().items():
        found += alone(f"form/{name}", SMALL, _both(content))
    for width, height in SIZES:
        found += alone(f"size/{width}x{height}", SMALL, _both(picture(width, height)))
    for orientation in range(10):
        for scene, rule in ((SMALL, "ignore"), (APPLY, "apply")):
            found += alone(f"orientation-{rule}/{orientation}", scene, _both(pictures.oriented(orientation)))
    for name, content in _bad().items():
        rows = {"predict": raw(content, False), "explain": raw(content)}
        found += alone(f"bad/{name}", SMALL, rows)
        found.append(Case(f"bad-in-a-batch/{name}", SMALL, {"bad": rows["explain"], "good": raw(picture(), False)}))
    return found


def _both(content: bytes) -> dict[str, Row]:
    return {
        "predict": raw(content, False),
        "explain": member(content, overlay=True, boxes=True),
        "npy": member(content, output="npy", method="gradient"),
    }


def _bad() -> dict[str, bytes]:
    jpeg = picture(form="JPEG")
    return {
        "text": b"just text",
        "cut-png": picture()[:200],
        "cut-jpeg": jpeg[: len(jpeg) // 2],
        "cut-jpeg-header": jpeg[:100],
        "cut-webp": picture(form="WEBP")[:60],
        "empty": b"",
        "huge": pictures.claimed(65_535, 65_535),
        "large": pictures.claimed(9_000, 9_000),
        "no-width": pictures.claimed(0, 10),
        "no-data": pictures.claimed(10, 10),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "pdf": b"%PDF-1.4",
        "zip": b"PK\x03\x04" + bytes(40),
        "thin": picture(1, 10_000),
        "wide": picture(30_000, 1),
        "png-magic": b"\x89PNG\r\n\x1a\n",
        "gif-magic": b"GIF89a",
        "tiff-magic": b"II*\x00" + bytes(20),
    }
