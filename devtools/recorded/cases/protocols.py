"""Every protocol that a row may come by: REST, KServe's two, `/invocations` and gRPC."""

from __future__ import annotations

from typing import Any

import numpy as np

from devtools.recorded.archives import Scene
from devtools.recorded.cases.case import Case, alone
from devtools.recorded.pictures import picture, plain
from devtools.recorded.rows import Row, b64, body, form, grpc, http, member, pictures, raw, tensors

SMALL = Scene()
OUTPUTS = ("prediction", "heatmap", "heatmap_instance", "overlay")


def cases() -> list[Case]:
    found = []
    for explains, route in ((True, "explain"), (False, "predict"), (None, "invocations")):
        found += alone(f"v1/{route}", SMALL, _v1(explains))
        found += alone(f"v2/{route}", SMALL, _v2(explains))
    found += alone("invocations", SMALL, _invocations())
    found += alone("grpc", SMALL, _grpc())
    image = picture()
    together = {
        "rest": member(image, method="cam"),
        "v1": body({"instances": [{"data": b64(image), "samples": 4}, b64(image)]}),
        "v2": tensors(pictures(image, image, method="gradient")),
        "v2-predict": tensors(pictures(image), explains=False),
        "invocations": member(image, None),
        "grpc": grpc(image, explain="true", method="smoothgrad", samples="7"),
        "grpc-v2": Row((("body", None, {"inputs": [pictures(b"text")]}),)),
        "form": form(image, output="png"),
    }
    found.append(Case("protocols/all-in-one-batch", SMALL, together))
    return found


def _v1(explains: bool | None) -> dict[str, Row]:
    image, other = picture(), picture(seed=1)
    sent = [
        {"data": b64(image), "target": 2},
        {"data": "!"},
        b64(other),
        {"b64": b64(image)},
        {"data": b64(b"text")},
        7,
        {"data": b64(image), "target": "top2", "method": "cam", "overlay": True},
        {"data": b64(image), "method": "lime"},
        {"data": b64(image), "samples": 3, "explain": False},
        {},
    ]
    one = [{"data": b64(image)}]
    said = {"explain": True} if explains is None else {}
    contents: dict[str, Any] = {
        "many": {"instances": sent, "boxes": True},
        "one": {"instances": one},
        "one-bad": {"instances": [{"data": b64(b"text")}]},
        "all-bad": {"instances": [{"data": b64(b"text")}, {"data": "!"}, 7]},
        "shared-options": {"instances": [*one, *one], "method": "cam", "signature_name": "x"},
        "shared-unknown": {"instances": one, "colour": "red"},
        "output-png": {"instances": one, "output": "png"},
        "output-npy": {"instances": [*one, *one], "output": "npy"},
        "stream": {"instances": one, "stream": True},
        "empty": {"instances": []},
        "no-list": {"instances": b64(image)},
        "too-many": {"instances": [b64(image)] * 65},
        "maps-too-many": {"instances": one * 40, "target": "top2"},
        "sixty-four": {"instances": [b64(picture(seed=index)) for index in range(64)], "top_k": 1},
    }
    return {name: body({**content, **said}, explains) for name, content in contents.items()}


def _v2(explains: bool | None) -> dict[str, Row]:
    image, other = picture(), picture(seed=1)
    view = np.random.default_rng(0).normal(0, 1, (3, 32, 32)).astype(np.float32).round(4)

    def numbers(values: Any, shape: Any = None, datatype: str = "FP32", **parameters: Any) -> dict[str, Any]:
        shape = list(values.shape) if shape is None else shape
        data = values.ravel().tolist()
        return {"name": "view", "datatype": datatype, "shape": shape, "data": data, "parameters": parameters}

    def wanted(*names: Any) -> list[dict[str, Any]]:
        return [{"name": name} for name in names]

    one = pictures(image)
    said = {"parameters": {"explain": True}, "explain": True} if explains is None else {}

    def sent(*inputs: Any, **members: Any) -> Row:
        return tensors(*inputs, explains=explains, **{**said, **members})

    rows = {
        "one": sent(one),
        "id": sent(one, id="a-name"),
        "id-number": sent(one, id=7),
        "id-long": sent(one, id="x" * 501),
        "several": sent(pictures(image, other, method="gradient"), pictures(other, target="top2")),
        "several-one-bad": sent(pictures(image, b"text", other)),
        "one-bad": sent(pictures(b"text")),
        "all-bad": sent(pictures(b"text"), pictures(b"")),
        "overlay": sent(pictures(image, overlay=True, colormap="viridis")),
        "output-png": sent(pictures(image, output="png")),
        "output-webp-several": sent(pictures(image, other, output="webp")),
        "output-npy": sent(pictures(image, output="npy")),
        "output-mixed": sent(pictures(image, output="png"), pictures(image)),
        "boxes": sent(pictures(image, boxes=True, top_k=2)),
        "shared-parameters": sent(one, parameters={"method": "cam", "explain": True, "binary_data": False}),
        "own-beat-shared": sent(pictures(image, method="cam"), parameters={"method": "gradient", "explain": True}),
        "smooth": sent(pictures(image, method="smoothgrad", samples=5)),
        "view": sent(numbers(view)),
        "view-batch": sent(numbers(np.stack([view, view[::-1]]), method="gradient")),
        "view-overlay": sent(numbers(view, overlay=True, boxes=True)),
        "view-png": sent(numbers(view, output="png")),
        "view-nested": sent({"name": "v", "datatype": "FP32", "shape": [3, 32, 32], "data": view.tolist()}),
        "view-wrong-shape": sent(numbers(view[:, :16, :16])),
        "view-wrong-count": sent(numbers(view, [3, 32, 33])),
        "view-two-axes": sent(numbers(view, [96, 32])),
        "view-too-large": sent(numbers(view * 1e7)),
        "view-words": sent({"name": "v", "datatype": "FP32", "shape": [3, 32, 32], "data": ["a"] * 3072}),
        "view-and-picture": sent(numbers(view), one),
        "datatype": sent(numbers(view, datatype="FP64")),
        "shape-missing": sent({"name": "image", "datatype": "BYTES", "data": [b64(image)]}),
        "shape-wrong": sent({**one, "shape": [2]}),
        "shape-zero": sent({**one, "shape": [0]}),
        "shape-of-two-axes": sent({**one, "shape": [1, 1]}),
        "data-text": sent({**one, "data": b64(image)}),
        "data-nested": sent({**one, "data": [[b64(image)]]}),
        "parameters-list": sent({**one, "parameters": []}),
        "shared-parameters-list": sent(one, parameters=[]),
        "input-number": sent(7),
        "none": sent(),
        "unknown-option": sent(pictures(image, colour="red")),
        "method-wrong": sent(pictures(image, method="lime")),
        "stream": sent(pictures(image, stream=True)),
        "too-many": sent(pictures(*[image] * 65)),
        "outputs-unknown": sent(one, outputs=wanted("map")),
        "outputs-no-names": sent(one, outputs=[1]),
        "outputs-empty": sent(one, outputs=[]),
        "outputs-twice": sent(one, outputs=wanted("heatmap", "heatmap")),
        "outputs-not-there": sent(one, outputs=wanted("overlay")),
        "outputs-of-an-error": sent(pictures(b"text"), outputs=wanted("heatmap")),
        "inputs-no-list": body({"inputs": {"data": b64(image)}, **said}, explains),
        "binary-extension": Row(
            (("body", "application/octet-stream", b"{}"),), http(explains, Inference_Header_Content_Length="2")
        ),
        "target-out-of-range": sent(pictures(image, target=6)),
        "grey": sent(pictures(plain(90, 90, 90))),
    }
    for name in OUTPUTS:
        rows[f"outputs-{name}"] = sent(pictures(image, overlay=True), outputs=wanted(name))
    rows["outputs-two"] = sent(pictures(image, other), outputs=wanted("heatmap_instance", "prediction"))
    return rows


def _invocations() -> dict[str, Row]:
    image = picture()
    return {
        "predict": member(image, None),
        "explain": member(image, None, explain=True, method="cam"),
        "explain-text": member(image, None, explain="yes"),
        "explain-no": member(image, None, explain="no", method="cam"),
        "raw": raw(image, None),
        "raw-explain-in-the-address": Row((("body", "image/png", image), ("explain", None, "true")), http(None)),
        "form": form(image, None, explain="true", method="cam", target="dog"),
        "form-predict": form(image, None, method="cam"),
        "model-name": Row(
            (("model_name", None, "recorded"), ("body", "application/json", {"data": b64(image), "explain": True})),
            http(None),
        ),
        "accept": Row(
            (("body", "application/json", {"data": b64(image), "explain": True}),), http(None, Accept="image/png")
        ),
        "refused": member(b"text", None, explain=True),
        "describe": Row((("body", "application/json", {"explain": True}),), http(None, url_path="describe")),
    }


def _grpc() -> dict[str, Row]:
    image = picture()
    numbers = np.zeros((3, 32, 32), np.float32).ravel().tolist()
    view = {"name": "view", "datatype": "FP32", "shape": [3, 32, 32], "data": numbers}
    return {
        "predict": grpc(image),
        "explain": grpc(image, explain="true"),
        "options": grpc(image, explain="true", method="cam", target="2", overlay="yes", top_k="2"),
        "base64": grpc(b64(image).encode(), explain="1"),
        "png": grpc(image, explain="true", output="png"),
        "npy": grpc(image, explain="true", output="npy", method="smoothgrad", samples="5"),
        "explain-odd": Row((("data", None, image), ("explain", None, b"\xff"))),
        "unknown": grpc(image, explain="true", colour="red"),
        "unknown-to-a-prediction": grpc(image, colour="red"),
        "input-called-content-length": Row((("content-length", None, b"5"), ("explain", None, b"true"))),
        "input-called-accept": Row((("data", None, image), ("accept", None, b"image/png"), ("explain", None, b"true"))),
        "input-called-x-explain": grpc(image, **{"explain": "true", "x-explain-method": "cam"}),
        "input-called-url-path": grpc(image, explain="true", url_path="describe"),
        "without-inputs": Row(),
        "text": grpc(b"text", explain="true"),
        "v2": Row((("body", None, {"inputs": [pictures(image)], "explain": True}),)),
        "v2-id": Row((("body", None, {"inputs": [pictures(image)], "id": "x"}),)),
        "v2-view": Row((("body", None, {"inputs": [view], "explain": True}),)),
        "v2-bad": Row((("body", None, {"inputs": [pictures(b"text")], "explain": True}),)),
        "v2-outputs": Row((("body", None, {"inputs": [pictures(image)], "outputs": [{"name": "prediction"}]}),)),
        "v1": Row((("body", None, {"instances": [b64(image)], "explain": True}),)),
        "v1-bad": Row((("body", None, {"instances": [b64(b"text")]}),)),
    }
