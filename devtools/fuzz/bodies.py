"""Hostile options, members and whole bodies for the parsers."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

from devtools.fuzz.pictures import any_picture, noise, plain
from heatserve.engine import METHODS
from heatserve.serving.formats import OUTPUTS
from heatserve.serving.options import OPTIONS

#: The side of the model's view. It is small, so that most time goes into reading requests.
SIDE = 64
FORGED = "[METRICS]forged.Count:1|#a:b"
#: A mark in JSON bodies. A list nested about as deeply as TorchServe's parser allows takes its place.
DEEP = "<deep>"
#: Layers that both archives tap.
LAYERS = ("_avg_pooling:input", "_blocks.10", "_blocks.5")
_GOOD: dict[str, list[Any]] = {
    "method": [*METHODS],
    "target": ["predicted", "top3", "top10", "present", "present", 7, "tabby"],
    "threshold": [0, 0.2, 0.5, 1],
    "contrast": ["nearest1", "nearest3", "nearest10", "nearest0", "nearest11", "nearest", 7, "tabby", "present"],
    "layer": [*LAYERS, "+".join(LAYERS), "+".join(LAYERS[1:]), f"{LAYERS[1]}+{LAYERS[1]}", f"{LAYERS[2]}+", "+" * 400],
    "seed": [0, 2**53],
    "samples": [1, 2, 4],
    "output": [*OUTPUTS],
    "overlay": [True],
    "boxes": [True],
    "top_k": [1, 1000],
    "stream": [True, False],
    "deadline_ms": [1, 50],
    "standard_error": [0.5, 5],
    "resolution": [1, 2, 5, 32],
    "colormap": ["jet", "viridis"],
}
_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 1e308, float("nan"), float("inf"), -0.0, "", " ", "0", "-1",
    "1e999", "NaN", "true", "null", "top0", "top99999999999", "é", "٣", "\ud800", "\0", "a\r\nSet-Cookie: a=b", FORGED,
    "x" * 2000, [], {}, [[]], {"a": 1}, ["gradcam"], {"b64": ""}, "../../etc/passwd", "file:///etc/passwd",
    "http://127.0.0.1:1/", "__class__", "{{7*7}}", "${jndi:ldap://127.0.0.1/a}", "%s%n", DEEP,
]  # fmt: skip


def options(chosen: random.Random) -> dict[str, Any]:
    """A few options, good and odd ones, sometimes one that does not exist."""
    found: dict[str, Any] = {}
    names = chosen.sample([*OPTIONS], chosen.choice([0, 0, 1, 1, 2, 3]))
    if chosen.random() < 0.5:  # most of the others have a meaning for some methods alone
        names = list(dict.fromkeys(["method", chosen.choice(["target", "contrast", "layer", "samples"]), *names]))
    for name in names:
        found[name] = chosen.choice(_GOOD.get(name, _ODD) if chosen.random() < 0.8 else _ODD)
    if chosen.random() < 0.06:
        found[chosen.choice(["explain", "lime", "", "é", FORGED, "describe", "data ", "x" * 300])] = chosen.choice(_ODD)
    return found


def texts(found: dict[str, Any]) -> dict[str, str]:
    """The same options as text: each value is one line of printable characters."""
    lines = {name: "".join(c for c in str(value) if c.isprintable())[:500] for name, value in found.items()}
    return {name: value.encode("ascii", "replace").decode() for name, value in lines.items() if name.isascii()}


def encoded(chosen: random.Random) -> Any:
    """A picture as base64, or something else in its place."""
    text = base64.b64encode(any_picture(chosen)).decode()
    if chosen.random() < 0.75:
        return text
    return chosen.choice(
        [f"data:image/png;base64,{text}", {"b64": text}, text[:-1], "!" + text, text + "\n", *_ODD[:12]]
    )


def members(chosen: random.Random) -> dict[str, Any]:
    """The members of a JSON body, or of an instance of KServe's first protocol."""
    return {chosen.choice(["data", "data", "data", "body", "image"]): encoded(chosen), **options(chosen)}


def json_body(chosen: random.Random, content: Any) -> bytes:
    """A body of JSON, sometimes one that json.dumps would not write."""
    depth = chosen.choice([50, 500, *range(940, 1_000)])
    text = json.dumps(content).replace(f'"{DEEP}"', "[" * depth + "]" * depth)
    spoiled = chosen.random()
    if spoiled < 0.02:
        return b"[" * chosen.choice([100, 5_000, 200_000]) + b"]" * chosen.choice([0, 100])
    if spoiled < 0.04:
        return text[: len(text) // 2].encode()
    if spoiled < 0.06:
        return b"\xef\xbb\xbf" + text.encode()
    if spoiled < 0.08:
        return text.encode("utf-16")
    if spoiled < 0.10 and isinstance(content, dict):
        return (text[:-1] + ', "data": 1, "data": "!", "method": 1}').encode()
    if spoiled < 0.12:
        return b'{"data": ' + b"9" * chosen.choice([5_000, 300_000]) + b"}"
    if spoiled < 0.14:
        return json.dumps(chosen.choice(_ODD)).encode()
    return text.encode()


def instances(chosen: random.Random) -> Any:
    """A body of KServe's first protocol."""
    kind = chosen.random()
    if kind < 0.15:
        return {"instances": chosen.choice([*_ODD, ["x"], [1], [[0.5] * 10], [{}] * 65, [{"data": ""}] * 64])}
    if kind < 0.2:
        # The answer would be far larger than the server allows.
        picture = base64.b64encode(noise(random.Random(1))).decode()
        return {"instances": [{"data": picture, "overlay": True, "target": "top10"}] * chosen.choice([1, 4])}
    return {"instances": [members(chosen) for _ in range(chosen.randint(1, 4))], **options(chosen)}


def tensors(chosen: random.Random) -> Any:
    """A body of KServe's second protocol."""
    kind = chosen.random()
    if kind < 0.1:
        return {"inputs": chosen.choice(_ODD)}
    inputs = [_tensor(chosen) for _ in range(chosen.randint(1, 3))]
    body: dict[str, Any] = {"inputs": inputs, "parameters": options(chosen)}
    if chosen.random() < 0.3:
        body["id"] = chosen.choice(_ODD)
    if chosen.random() < 0.2:
        body["outputs"] = chosen.choice([[{"name": "heatmap"}], [{"name": FORGED}], [{"name": DEEP}], [1], *_ODD])
    if chosen.random() < 0.1:
        body["parameters"] = chosen.choice(_ODD)
    return body


def _tensor(chosen: random.Random) -> Any:
    kind = chosen.random()
    if kind < 0.1:
        return chosen.choice(_ODD)
    if kind < 0.3:
        shape = chosen.choice([[3, SIDE, SIDE], [1, 3, SIDE, SIDE], [3, 2, 2], [2**30, 2**30], [-1], [0], [1.5], ["a"]])
        data: Any = chosen.choice([[0.5] * 12, [float("nan")] * 12, ["x"], [[1], [2, 3]], [0.1] * (3 * SIDE**2), *_ODD])
        return {"name": "view", "datatype": chosen.choice(["FP32", "FP64", "BYTES"]), "shape": shape, "data": data}
    count = chosen.randint(1, 3)
    tensor: dict[str, Any] = {
        "name": "image",
        "datatype": chosen.choice(["BYTES", "BYTES", "BYTES", "FP32", "INT8", "é", None]),
        "shape": chosen.choice([[count], [count], [count, 1], [count + 1], [], chosen.choice(_ODD)]),
        "data": [encoded(chosen) for _ in range(count)],
    }
    if chosen.random() < 0.3:
        tensor["parameters"] = options(chosen)
    return tensor


def good() -> bytes:
    """A picture that is nothing special."""
    return plain("PNG", "RGB", 320, 240)
