"""Requests that are refused: wrong options, costs beyond a limit, and faults of the network."""

from __future__ import annotations

from typing import Any

from devtools.recorded.archives import Scene
from devtools.recorded.cases.case import Case, alone
from devtools.recorded.pictures import noise, picture, plain
from devtools.recorded.rows import Row, b64, body, form, grpc, http, member, pictures, raw, tensors

SMALL = Scene()
FAULTY = Scene("Faulty", preprocess={"resize": 36, "crop": 32, "mean": [0.5] * 3, "std": [0.25] * 3})
LOST = Scene("Faulty", preprocess=FAULTY.preprocess, fresh=True)
EVIL = "x\n[METRICS]forged.Count:1|#Level:Model|#hostname:h,1"

_WRONG: dict[str, tuple[Any, ...]] = {
    "method": ("lime", "", "GRADCAM", 3, [], True, "x" * 501),
    "target": ("nothing", "crane", 6, -1, "7", "top0", "top7", "top11", "topx", 1.5, True, [], "", "x" * 501),
    "contrast": ("nothing", "crane", 6, -1, "top2", "predicted", True, 2.0, {}),
    "samples": (0, -1, 201, "many", 1.5, "1.0", 1e10, True, [], ""),
    "standard_error": (0, -1, 11, "small", True, [], 0.0001, "nan", "inf"),
    "resolution": (0, -1, 1025, 33, 2, 1.5, "coarse", True, []),
    "noise_level": (-0.1, 1.1, "loud", True, [], float("nan")),
    "seed": (-1, 2**53 + 1, "x", 1.5, True),
    "layer": ("pool", "linear", "nothing", "", 3, "trunk.0"),
    "top_k": (0, 1001, "x", 1.5, True),
    "output": ("gif", "JSON", "ndjson", 3, "", "image/png"),
    "overlay": ("maybe", 2, 1, "", [], 0.0),
    "colormap": ("red", 3, "Jet"),
    "opacity": (-0.1, 1.1, "thin", True),
    "boxes": ("maybe", 2),
    "box_threshold": (0, 1.1, "low", True),
    "deadline_ms": (0, 3_600_001, "soon", 1.5),
    "stream": ("maybe", 2),
}
_TOGETHER: dict[str, dict[str, Any]] = {
    "layer-of-gradient": {"method": "gradient", "layer": "trunk"},
    "layer-of-cam": {"method": "cam", "layer": "trunk"},
    "vargrad-of-one": {"method": "vargrad", "samples": 1},
    "vargrad-without-noise": {"method": "vargrad", "noise_level": 0},
    "error-without-samples": {"standard_error": 0.1},
    "error-with-one-sample": {"standard_error": 0.1, "samples": 1},
    "targets-times-samples": {"target": "top5", "samples": 60},
    "png-of-several": {"output": "png", "target": "top2"},
    "stream-of-png": {"output": "png", "stream": True},
    "stream-of-npy": {"output": "npy", "stream": True, "samples": 4},
    "unknown": {"colour": "red"},
    "unknown-with-evil-name": {EVIL: 1},
    "unknown-null": {"colour": None},
    "evil-value": {"method": EVIL},
    "evil-target": {"target": EVIL},
    "deep-value": {"method": [[[[[[]]]]]]},
    "two-wrong": {"method": "lime", "samples": 0},
}


def cases() -> list[Case]:
    image = picture()
    found = []
    for option, values in _WRONG.items():
        rows = {f"{option}-{index}": member(image, **{option: value}) for index, value in enumerate(values)}
        found += alone("wrong", SMALL, rows)
    found += alone("wrong-together", SMALL, {name: member(image, **given) for name, given in _TOGETHER.items()})
    found += alone("wrong-deep", Scene("Deep", labels=()), {"cam": member(image, method="cam")})
    found += alone("wrong-bodies", SMALL, _bodies(image))
    return found + _limits(image) + _busy(image) + _faults()


def _bodies(image: bytes) -> dict[str, Row]:
    contents: dict[str, Any] = {
        "empty-object": {},
        "null": None,
        "list": [b64(image)],
        "number": 7,
        "text": "text",
        "base64-text": b64(image),
        "data-null": {"data": None},
        "data-number": {"data": 7},
        "data-list": {"data": [b64(image)]},
        "data-not-base64": {"data": "not base64!"},
        "data-text": {"data": b64(b"text")},
        "data-empty": {"data": ""},
        "explain-in-a-prediction": {"data": b64(image), "explain": True},
    }
    rows = {name: body(content) for name, content in contents.items()}
    rows |= {f"{name}-predict": body(content, False) for name, content in contents.items()}
    rows |= {
        "nothing": Row((), http(True)),
        "nothing-predict": Row((), http(False)),
        "nothing-invocations": Row((), http(None)),
        "explain-header-odd": Row((("body", "image/png", image),), {"content-length": "1", "explain": "Maybe"}),
        "form-method": form(image, method="lime"),
        "tensor-too-large": tensors(_too_large()),
        "raw-text": Row((("body", "text/plain", "text"),), http(True)),
    }
    return rows


def _too_large() -> dict[str, Any]:
    return {"name": "view", "datatype": "FP32", "shape": [64, 3, 1 << 20, 1 << 10], "data": []}


def _limits(image: bytes) -> list[Case]:
    two = {"instances": [b64(image), b64(picture(seed=1))]}
    large = noise(400, 300)
    found = []
    for name, limits in (
        ("max_image_bytes", {"max_image_bytes": 1000}),
        ("max_pixels", {"max_pixels": 3000}),
        ("max_resized_pixels", {"max_resized_pixels": 2000}),
        ("max_decode_ms", {"max_decode_ms": 1}),
        ("max_samples", {"max_samples": 10}),
        ("max_explanations", {"max_explanations": 1}),
        ("max_batch_work", {"max_samples": 10, "max_batch_work": 31}),
        ("max_waiting_bytes", {"max_waiting_bytes": 100}),
    ):
        rows = {
            "predict": raw(image, False),
            "explain": raw(image),
            "smooth": member(image, samples=10),
            "smooth-more": member(image, samples=11),
            "smoothgrad": member(image, method="smoothgrad"),
            "gradient": member(image, method="gradient"),
            "large": raw(large),
            "large-predict": raw(large, False),
            "v1": body({**two, "samples": 6}),
            "v1-predict": body(two, False),
            "v2": tensors(pictures(image, picture(seed=1), samples=6)),
            "wide": raw(picture(300, 4)),
        }
        found += alone(f"limit/{name}", Scene(explain=limits), rows)
        found += alone(f"limit-of-environment/{name}", Scene(environment=_variables(limits)), {"large": raw(large)})
    return found


def _variables(limits: dict[str, int]) -> dict[str, str]:
    return {f"HEATSERVE_{name.upper()}": str(value) for name, value in limits.items()}


def _busy(image: bytes) -> list[Case]:
    """Rows that are refused because of those before them in their batch."""
    smooth = member(image, method="smoothgrad", samples=10)
    rows = {"a": smooth, "b": smooth, "c": smooth, "p": raw(image, False), "g": raw(image), "i": grpc(image)}
    scenes = {
        "max_batch_work": {"max_samples": 10, "max_batch_work": 40},
        "max_explanations": {"max_explanations": 2},
        "max_waiting_bytes": {"max_waiting_bytes": len(image) * 3 // 2},
        "max_batch_decode_ms": {"max_decode_ms": 2, "max_batch_decode_ms": 2},
    }
    found = [Case(f"busy/{name}", Scene(explain=limits, fresh=True), rows) for name, limits in scenes.items()]
    large = {f"p{index}": raw(noise(200, 150), False) for index in range(8)}
    decoding = Scene(explain=scenes["max_batch_decode_ms"], fresh=True)
    return [*found, Case("busy/pictures-to-decode", decoding, large)]


def _faults() -> list[Case]:
    colours = {
        "out-of-memory": plain(255, 255, 255),
        "fault": plain(0, 0, 0),
        "not-a-number": plain(255, 0, 0),
        "saturated": plain(0, 0, 255),
        "good": picture(),
    }
    found = []
    for name, content in colours.items():
        rows = {
            "predict": raw(content, False),
            "explain": raw(content),
            "npy": member(content, output="npy", method="gradient"),
            "smooth": member(content, method="smoothgrad", samples=9, noise_level=0.01),
            "top5": member(content, target="top5", top_k=6, samples=3, noise_level=0.01),
            "v1": body({"instances": [b64(content), b64(picture())]}),
            "v2": tensors(pictures(content, picture())),
            "v2-one": tensors(pictures(content)),
            "grpc": grpc(content, explain="true"),
            "png": raw(content, Accept="image/png"),
        }
        found += alone(f"fault/{name}", FAULTY, rows)
    together = {name: raw(content) for name, content in colours.items()}
    smooth = {name: member(content, method="smoothgrad", samples=5, noise_level=0.01)
              for name, content in colours.items()}  # fmt: skip
    lost = {"good": raw(picture()), "lost": raw(plain(0, 255, 0)), "predict": raw(picture(), False)}
    return [
        *found,
        Case("fault/together", FAULTY, together),
        Case("fault/together-smooth", FAULTY, smooth),
        Case("fault/together-predictions", FAULTY, {name: raw(each, False) for name, each in colours.items()}),
        Case("fault/device-lost", LOST, lost),
        Case("fault/device-lost-alone", LOST, {"lost": raw(plain(0, 255, 0), False)}),
    ]
