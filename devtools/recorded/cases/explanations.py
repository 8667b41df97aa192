"""Explanations: every method, and each target, layer, sample and setting that a map depends on."""

from __future__ import annotations

from typing import Any

from devtools.recorded.archives import LABELS, VIEW, Scene
from devtools.recorded.cases.case import Case, alone
from devtools.recorded.pictures import picture, plain
from devtools.recorded.rows import Row, b64, body, member, raw

METHODS = ("gradcam", "cam", "gradient", "smoothgrad", "smoothgrad_squared", "vargrad")
SMALL = Scene()
DEEP = Scene("Deep", labels=())
LAYERS = Scene("Deep", {"layer": ["body.2", "stem.2", "body.0"]}, labels=())
LARGE = {"resize": 64, "crop": 64}
LITE0 = Scene(
    "lite0",
    {"chunk": 4},
    {"resize": 256, "crop": 224, "interpolation": "bicubic", "mean": [0.498] * 3, "std": [0.502] * 3},
    labels=(),
)

_SETTINGS: dict[str, dict[str, Any]] = {
    "not-optimized": {"optimize": False},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "chunk-1": {"chunk": 1},
    "chunk-3": {"chunk": 3},
    "tapped-twice": {"layer": ["trunk.3", "trunk.1"]},
    "defaults": {
        "method": "smoothgrad",
        "standard_error": 5,
        "max_samples": 30,
        "noise_level": 0.1,
        "top_k": 2,
        "overlay": True,
        "colormap": "viridis",
        "opacity": 0.3,
        "boxes": True,
        "box_threshold": 0.5,
    },
    "default-output": {"output": "png"},
    "default-samples": {"samples": 4, "seed": 9},
}
_PREPROCESS: dict[str, dict[str, Any]] = {
    "nearest": {"interpolation": "nearest"},
    "bicubic": {"interpolation": "bicubic"},
    "lanczos": {"interpolation": "lanczos"},
    "no-resize": {"resize": None},
    "crop-beyond-the-picture": {"resize": 20},
    "other-scale": {"mean": [0.1, 0.2, 0.3], "std": [0.9, 0.8, 0.7]},
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "target-index": {"target": 3},
    "target-index-as-text": {"target": "3"},
    "target-label": {"target": "dog"},
    "target-label-in-capitals": {"target": "DOG"},
    "target-label-of-odd-letters": {"target": "Bär"},
    "target-label-with-a-line-break": {"target": LABELS[5]},
    "target-predicted": {"target": "predicted"},
    "target-top1": {"target": "top1"},
    "target-top3": {"target": "top3"},
    "target-top6": {"target": "top6"},
    "target-top3-smooth": {"target": "top3", "samples": 5},
    "target-top2-vargrad": {"target": "top2", "method": "vargrad", "samples": 6},
    "contrast-index": {"contrast": 1},
    "contrast-label": {"contrast": "cat", "target": 4},
    "contrast-itself": {"contrast": 2, "target": 2},
    "contrast-smooth": {"contrast": 1, "method": "smoothgrad", "samples": 5},
    "contrast-cam": {"contrast": 1, "method": "cam"},
    "layer": {"layer": "trunk"},
    "samples-2": {"samples": 2},
    "samples-9-seed": {"samples": 9, "seed": 12345},
    "samples-17": {"method": "smoothgrad", "samples": 17},
    "one-sample-of-smoothgrad": {"method": "smoothgrad", "samples": 1},
    "noise-0": {"method": "smoothgrad", "samples": 4, "noise_level": 0},
    "noise-1": {"method": "smoothgrad", "samples": 4, "noise_level": 1},
    "error-reached": {"method": "smoothgrad", "standard_error": 10},
    "error-not-reached": {"method": "smoothgrad", "standard_error": 0.001, "samples": 20},
    "error-without-samples-top2": {"method": "smoothgrad", "standard_error": 0.3, "target": "top2"},
    "error-of-gradcam": {"samples": 40, "standard_error": 0.2},
    "blocks": {"method": "smoothgrad", "samples": 4, "resolution": 5, "boxes": True},
    "error-of-blocks": {"method": "expected_gradients", "resolution": 8, "standard_error": 1},
    "error-of-vargrad": {"method": "vargrad", "samples": 60, "standard_error": 0.5},
    "deadline-not-reached": {"method": "smoothgrad", "samples": 12, "deadline_ms": 5},
    "top_k-1": {"top_k": 1},
    "top_k-6": {"top_k": 6},
    "top_k-1000": {"top_k": 1000},
    "boxes": {"boxes": True},
    "boxes-low": {"boxes": True, "box_threshold": 0.01},
    "boxes-high": {"boxes": True, "box_threshold": 1},
    "boxes-cam-top2": {"boxes": True, "method": "cam", "target": "top2"},
    "overlay": {"overlay": True},
    "overlay-top3": {"overlay": True, "target": "top3"},
    "overlay-cam": {"overlay": True, "method": "cam"},
    "overlay-opacity-0": {"overlay": True, "opacity": 0},
    "overlay-opacity-1": {"overlay": True, "opacity": 1},
    "null-is-the-default": {"method": None, "target": None, "samples": None},
    "numbers-as-text": {"samples": "3", "noise_level": "2e-1", "overlay": "yes", "boxes": "on", "top_k": "+2"},
}


def cases() -> list[Case]:
    image = picture()
    found = alone("options", SMALL, {name: member(image, **options) for name, options in _OPTIONS.items()})
    for output in ("json", "npy", "png", "webp", "jpeg"):
        methods = {f"{method}-{output}": member(image, method=method, output=output) for method in METHODS}
        found += alone("methods", SMALL, methods)
        if output != "json":
            found += alone("methods-top1", SMALL, {output: member(image, target="top1", output=output, samples=3)})
    found += alone("methods", SMALL, {"npy-of-several": member(image, target="top3", output="npy")})
    colours = ("grey", "jet", "hot", "viridis", "inferno", "red")
    found += alone("colormaps", SMALL, {name: member(image, overlay=True, colormap=name) for name in colours})
    found += alone("colormaps-png", SMALL, {name: member(image, output="png", colormap=name) for name in colours})
    for name, scene in (("deep", DEEP), ("layers", LAYERS)):
        found += alone(f"methods-{name}", scene, {each: member(image, method=each, output="npy") for each in METHODS})
        found += alone(f"predictions-{name}", scene, {"raw": raw(image, False)})
    for network in ("Viewing", "Padded", "resnet18", "mobilenet", "squeezenet"):
        scene = Scene(network, preprocess=LARGE if network.islower() else VIEW, labels=())
        found += alone(f"network/{network}", scene, _usual(image))
        found += alone(f"network-cam/{network}", scene, {"cam": member(image, method="cam", output="npy")})
    steep = Scene("Steep", {"precision": "float16"})
    bright = plain(255, 255, 255)
    for name, content in (("bright", bright), ("other", image)):
        found += alone(f"steep/{name}", steep, {each: member(content, method=each, samples=9) for each in METHODS})
    for layer in ("body.2", "stem.2", "body.0", "head.0", "nothing"):
        found += alone("layer", LAYERS, {layer: member(image, layer=layer, output="npy")})
        found += alone("layer-json", LAYERS, {layer: member(image, layer=layer, samples=3)})
    for name, settings in _SETTINGS.items():
        scene = Scene(explain=settings)
        found += alone(f"settings/{name}", scene, _usual(image))
    for name, changed in _PREPROCESS.items():
        scene = Scene(preprocess={**VIEW, **changed})
        found += alone(f"preprocess/{name}", scene, _usual(image))
    return found + _batches() + _lite0()


def _usual(image: bytes) -> dict[str, Row]:
    return {
        "prediction": raw(image, False),
        "json": body({"data": b64(image)}),
        "gradcam": member(image, method="gradcam", output="npy"),
        "smooth-gradcam": member(image, method="gradcam", samples=5, output="npy"),
        "smoothgrad": member(image, method="smoothgrad", samples=11, output="npy"),
        "smoothgrad-json": member(image, method="smoothgrad", samples=3),
        "describe": raw(b"", True, "describe"),
    }


def _batches() -> list[Case]:
    images = [picture(60 + seed, 40, seed) for seed in range(8)]
    mixed = {
        "prediction": raw(images[0], False),
        "gradcam": raw(images[1]),
        "broken": raw(b"not an image"),
        "gradient": member(images[3], method="gradient", target=1, output="npy"),
        "target": member(images[4], target=4, output="npy"),
        "smooth": member(images[5], method="smoothgrad", samples=13, output="npy"),
        "soft": member(images[6], samples=5, target="top2"),
        "again": raw(images[7], False),
    }
    many = {f"p{index}": raw(picture(seed=index), False) for index in range(40)}
    equal = {f"s{index}": member(images[0], method="smoothgrad", samples=4, output="npy") for index in range(3)}
    smooth = {
        f"s{count}": member(images[count % 8], method="smoothgrad", samples=count, output="npy") for count in (2, 5, 9)
    }
    return [
        Case("batches/mixed", SMALL, mixed),
        Case("batches/mixed-deep", DEEP, mixed),
        Case("batches/forty-predictions", SMALL, many),
        Case("batches/equal-requests", SMALL, equal),
        Case("batches/smooth-ones-share-chunks", SMALL, smooth),
    ]


def _lite0() -> list[Case]:
    image = picture(450, 300, 7, "JPEG")
    rows = {method: member(image, method=method, samples=1 if method in METHODS[:3] else 5) for method in METHODS}
    rows |= {f"{name}-npy": member(image, method=name, output="npy") for name in ("gradcam", "cam", "gradient")}
    rows |= {"prediction": raw(image, False), "overlay": member(image, overlay=True, boxes=True, target="top2")}
    return alone("lite0", LITE0, rows)
