"""Archives that cannot be served: the sentence that the log gets. And the line of those that can."""

from __future__ import annotations

from typing import Any

from devtools.recorded.archives import VIEW, Scene
from devtools.recorded.cases.case import Case

_EXPLAIN: dict[str, dict[str, Any]] = {
    "unknown-setting": {"colour": "red"},
    "method": {"method": "lime"},
    "method-number": {"method": 3},
    "layer": {"layer": "nothing"},
    "layer-number": {"layer": 3},
    "layer-list": {"layer": ["trunk", 3]},
    "chunk-zero": {"chunk": 0},
    "chunk-word": {"chunk": "many"},
    "optimize": {"optimize": "maybe"},
    "precision": {"precision": "int8"},
    "target": {"target": 3},
    "samples": {"samples": 201},
    "noise_level": {"noise_level": 2},
    "top_k": {"top_k": 0},
    "output": {"output": "gif"},
    "colormap": {"colormap": "red"},
    "max_samples": {"max_samples": 0},
    "max_batch_work": {"max_batch_work": 600},
    "max_batch_decode_ms": {"max_batch_decode_ms": 1},
    "grpc_stream": {"grpc_stream": "yes"},
}
_PREPROCESS: dict[str, dict[str, Any]] = {
    "unknown-setting": {"colour": "red"},
    "resize": {"resize": 0},
    "crop-null": {"crop": None},
    "crop-huge": {"crop": 3000},
    "mean": {"mean": [0.5]},
    "std": {"std": [0.5, 0, 0.5]},
    "std-tiny": {"std": [1e-40] * 3},
    "interpolation": {"interpolation": "area"},
    "orientation": {"orientation": "exif"},
}
_SERVER: dict[str, dict[str, Any]] = {
    "pt2": {"pt2": "inductor"},
    "pt2-compile": {"pt2": {"compile": {"enable": True}}},
    "continuous-text": {"continuousBatching": "true"},
    "continuous-workers": {"continuousBatching": True, "minWorkers": 2},
    "continuous-sequence": {"continuousBatching": True, "sequenceBatching": True},
    "asynchronous": {"asyncCommunication": True},
    "profile": {"handler": {"profile": True}},
    "typing-error": {"explian": {}},
    "typing-error-of-a-view": {"preproces": {}},
}


def cases() -> list[Case]:
    scenes = {f"explain-{name}": Scene(explain=given) for name, given in _EXPLAIN.items()}
    scenes |= {f"preprocess-{name}": Scene(preprocess={**VIEW, **given}) for name, given in _PREPROCESS.items()}
    scenes |= {f"server-{name}": Scene(server=given) for name, given in _SERVER.items()}
    scenes |= {
        "environment-typing-error": Scene(environment={"HEATSERVE_MAX_SAMPELS": "3"}),
        "environment-word": Scene(environment={"HEATSERVE_MAX_SAMPLES": "many"}),
        "continuous-grpc-stream": Scene(explain={"grpc_stream": True}, server={"continuousBatching": True}),
        "labels-too-few": Scene(labels=("a", "b")),
        "architecture-unknown": Scene("Nothing"),
        "architecture-not-a-network": Scene("SIDE"),
        "network-broken": Scene("Broken"),
        "network-flat": Scene("Flat"),
        "network-deep-cam": Scene("Deep", {"method": "cam"}, labels=()),
        "network-flat-gradcam": Scene("Flat", {"method": "gradcam"}),
        "view-too-small": Scene("Flat", preprocess={"resize": 16, "crop": 16}),
        "members-wrong": Scene(manifest={"members": {"index_to_name.json": "0"}}),
        "served-linear": Scene(),
        "served-deep": Scene("Deep", labels=()),
        "served-continuous": Scene(server={"continuousBatching": True}),
    }
    # A scene of its own for each, so that each starts.
    return [Case(f"start/{name}", scene, {}) for name, scene in scenes.items()]
