"""Starts of archives: each writes one line into the log, which says that it is served or why it is not."""

from __future__ import annotations

import io
import json
from typing import Any

import torch

from devtools.recorded.archives import VIEW, Scene
from devtools.recorded.cases.case import Case
from devtools.recorded.networks import Linear

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
_NETWORKS = (
    "Probabilities",
    "Sigmoids",
    "Disguised",
    "Percentages",
    "OneScore",
    "Pair",
    "Vanishing",
    "ChannelsBehind",
)


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
        **{f"network-{name}": Scene(name) for name in _NETWORKS},
        **{
            f"network-{name}-float16": Scene(name, {"precision": "float16"})
            for name in ("Vanishing", "Steep", "Deep", "Viewing")
        },
        **{
            f"layer-{name}": Scene("ChannelsBehind", {"layer": name}) for name in ("trunk", "mixed", "unused", "linear")
        },
        "members-wrong": Scene(manifest={"members": {"index_to_name.json": "0"}}),
        "served-linear": Scene(),
        "served-deep": Scene("Deep", labels=()),
        "served-continuous": Scene(server={"continuousBatching": True}),
    }
    scenes |= _of_weights() | _of_labels() | _of_members()
    # A scene of its own for each, so that each starts.
    return [Case(f"start/{name}", scene, {}) for name, scene in scenes.items()]


def _saved(state: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def _of_weights() -> dict[str, Scene]:
    state = Linear().state_dict()
    nan = {**state, "linear.bias": torch.full((6,), torch.nan)}
    files = {
        "state": _saved(state),
        "nested": _saved({"state_dict": state, "epoch": 3}),
        "missing": _saved({name: value for name, value in state.items() if name != "linear.bias"}),
        "extra": _saved({**state, "other": torch.zeros(1)}),
        "other-shape": _saved({**state, "linear.bias": torch.zeros(7)}),
        "not-finite": _saved(nan),
        "list": _saved([1, 2]),
        "network": _saved(Linear()),
        "empty": b"",
        "text": b"no weights",
        "cut": _saved(state)[:500],
    }
    model = {"serializedFile": "weights.pt"}
    scenes = {f"weights-{name}": Scene(model=model, files={"weights.pt": content}) for name, content in files.items()}
    sources = {
        "one-class": "from devtools.recorded.networks import Linear as Base\nclass Own(Base):\n    pass\n",
        "no-class": "x = 1\n",
        "two-classes": "class A: pass\nclass B: pass\n",
        "exits": "import sys\nsys.exit(3)\n",
        "arguments": "class A:\n    def __init__(self, size): pass\n",
    }
    for name, source in sources.items():
        # Python keeps a module by its name: each file has its own.
        file = f"recorded_{name.replace('-', '_')}.py"
        scenes[f"model-file-{name}"] = Scene(model={"modelFile": file}, files={file: source.encode()})
    return {**scenes, "weights-absent": Scene(model=model)}


def _of_labels() -> dict[str, Scene]:
    named = {str(index): f"class {index}" for index in range(6)}
    contents = {
        "lists": json.dumps({index: ["n0", label] for index, label in named.items()}).encode(),
        "object-type-names": json.dumps({"object_type_names": [*named.values()]}).encode(),
        "array": b"[1, 2]",
        "empty": b"",
        "not-json": b"{",
        "latin-1": '{"0": "B\u00e4r"}'.encode("latin-1"),
        "surrogate": b'{"0": "\\ud800"}',
        "words": b'{"zero": "a"}',
    }
    return {
        f"labels-{name}": Scene(labels=(), files={"index_to_name.json": content}) for name, content in contents.items()
    }


def _of_members() -> dict[str, Scene]:
    return {
        "members-verified": Scene(verified=True),
        "members-changed": Scene(verified=True, manifest={"members": {"config.yaml": "0" * 64}}),
        "members-missing": Scene(verified=True, manifest={"members": {"other.py": "0" * 64}}),
        "members-verified-weights": Scene(
            verified=True, model={"serializedFile": "w.pt"}, files={"w.pt": _saved(Linear().state_dict())}
        ),
    }
