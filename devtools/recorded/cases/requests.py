"""Ways to say an option, and forms of an answer: headers, paths, Accept, streams, sizes."""

from __future__ import annotations

from typing import Any

from devtools.recorded.archives import Scene
from devtools.recorded.cases.case import Case, alone
from devtools.recorded.pictures import noise, picture
from devtools.recorded.rows import Row, b64, body, form, grpc, http, member, pictures, raw, tensors

SMALL = Scene()
ACCEPT = {
    "json": "application/json",
    "png": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "npy": "application/x-npy",
    "ndjson": "application/x-ndjson",
    "any": "*/*",
    "any-picture": "image/*",
    "any-application": "application/*",
    "browser": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "weights": "application/json;q=0.1, image/png;q=0.5, image/webp;q=0.4",
    "zero": "image/png;q=0, */*",
    "zero-json": "application/json;q=0, */*",
    "all-zero": "*/*;q=0",
    "capitals": "IMAGE/PNG",
    "parameters": "image/png;v=1;q=0.9",
    "malformed-weight": "image/png;q=high, application/json;q=0.1",
    "weight-above-one": "image/png;q=2",
    "html": "text/html",
    "gif": "image/gif, text/plain",
    "empty": "",
    "comma": ",",
    "many": ", ".join(f"text/x{index}" for index in range(60)) + ", image/png",
}


def cases() -> list[Case]:
    image = picture()
    found = alone("accept", SMALL, {name: raw(image, Accept=value) for name, value in ACCEPT.items()})
    found += alone(
        "accept-several", SMALL, {name: raw(image, Accept=ACCEPT[name], X_Explain_Target="top2") for name in ACCEPT}
    )
    found += alone("accept-prediction", SMALL, {name: raw(image, False, Accept=ACCEPT[name]) for name in ACCEPT})
    found += alone("accept-error", SMALL, {name: raw(b"text", Accept=ACCEPT[name]) for name in ("png", "html")})
    found += alone("said", SMALL, _said(image))
    found += alone("paths", SMALL, _paths(image))
    found += alone("streams", SMALL, _streams(image))
    found += alone("streams-grpc", Scene(explain={"grpc_stream": True}), _streams(image))
    found += alone("top_k", SMALL, _top_k(image))
    found.append(Case("streams-together/ordinary", SMALL, _streams(image)))
    return found + _fitting()


def _said(image: bytes) -> dict[str, Row]:
    return {
        "headers": raw(image, X_Explain_Method="cam", x_explain_target="2", X_EXPLAIN_OVERLAY="true"),
        "header-with-lines": raw(image, X_Explain_Noise_Level="0.3", X_Explain_Samples="3"),
        "header-unknown": raw(image, X_Explain_Colour="red"),
        "header-empty": raw(image, X_Explain_Method=""),
        "header-beats-path": raw(image, True, "cam", X_Explain_Method="gradient"),
        "field-beats-header": Row(
            (("body", "application/json", {"data": b64(image), "method": "gradcam"}),),
            http(True, "cam", X_Explain_Method="gradient"),
        ),
        "field-null-leaves-header": Row(
            (("body", "application/json", {"data": b64(image), "method": None}),),
            http(True, X_Explain_Method="gradient"),
        ),
        "accept-and-output": raw(image, Accept="image/png", X_Explain_Output="npy"),
        "form": form(image, method="cam", target="dog", overlay="true", boxes="1"),
        "form-of-base64": form(b64(image).encode(), method="cam"),
        "form-without-a-picture": form(b"", method="cam"),
        "json-explain-member": member(image, explain=True),
        "json-b64-object": body({"data": {"b64": b64(image)}}),
        "json-data-address": body({"data": f"data:image/png;base64,{b64(image)}", "method": "cam"}),
        "json-body-member": body({"body": b64(image)}),
        "json-base64-with-line-breaks": body({"data": "\n".join(b64(image)[i : i + 76] for i in range(0, 900, 76))}),
        "raw-base64": raw(b64(image).encode()),
        "raw-data-address": raw(f"data:image/png;base64,{b64(image)}".encode()),
        "address-parameters": Row(
            (("body", "image/png", image), ("method", None, "cam"), ("target", None, "2")), http(True)
        ),
    }


def _paths(image: bytes) -> dict[str, Row]:
    paths = ("cam", "/cam/", "gradcam", "smoothgrad", "lime", "cam/2", "describe/it", "%20", "describe", "/describe/")
    found = {path.replace("/", "|"): raw(image, True, path) for path in paths}
    found["describe-without-picture"] = raw(b"", True, "describe")
    found["describe-to-predictions"] = raw(image, False, "describe")
    found["describe-in-json"] = body({}, True, "describe")
    found["describe-with-accept"] = raw(b"", True, "describe", Accept="image/png")
    found["describe-v2"] = tensors(pictures(image))
    return found


def _streams(image: bytes) -> dict[str, Row]:
    smooth: dict[str, Any] = {"method": "smoothgrad", "samples": 40, "stream": True}
    return {
        "member": member(image, **smooth),
        "accept": raw(image, Accept="application/x-ndjson", X_Explain_Method="smoothgrad"),
        "top2": member(image, **{**smooth, "target": "top2", "samples": 20}),
        "at-once": member(image, method="cam", stream=True),
        "two-samples": member(image, method="smoothgrad", samples=2, stream=True),
        "error": member(image, method="smoothgrad", samples=60, stream=True, standard_error=0.2),
        "refused": member(b"text", **smooth),
        "with-png": member(image, **{**smooth, "output": "png"}),
        "with-json": member(image, **{**smooth, "output": "json"}),
        "prediction": member(image, False, stream=True),
        "grpc": grpc(image, explain="true", method="smoothgrad", samples="20", stream="true"),
        "invocations": member(image, None, explain=True, **smooth),
        "v1": body({"instances": [{"data": b64(image)}], **smooth}),
        "v2": tensors(pictures(image, **smooth)),
    }


def _top_k(image: bytes) -> dict[str, Row]:
    values = {"one": 1, "text": "2", "many": 1000, "zero": 0, "word": "many", "null": None, "list": [1], "flag": True}
    found = {name: member(image, False, top_k=value) for name, value in values.items()}
    found["header"] = raw(image, False, X_Explain_Top_K="3")
    found["header-unknown"] = raw(image, False, X_Explain_Colour="3")
    found["unknown-option"] = member(image, False, colour="red", method="lime")
    return found


def _fitting() -> list[Case]:
    """Answers that have to become smaller to fit, or do not fit at all."""
    large = noise(900, 600)
    rows = {
        "overlay": member(large, overlay=True),
        "heatmap": member(large),
        "heatmap-top6": member(large, target="top6"),
        "png": raw(large, Accept="image/png"),
        "jpeg": raw(large, Accept="image/jpeg"),
        "webp": raw(large, Accept="image/webp"),
        "npy": raw(large, Accept="application/x-npy"),
        "npy-top6": member(large, target="top6", output="npy"),
        "prediction": raw(large, False),
        "v1": body({"instances": [{"data": b64(large)}, {"data": b64(picture())}, {"data": "!"}], "overlay": True}),
        "v2": tensors(pictures(large, overlay=True)),
        "v2-png": tensors(pictures(large, picture(), output="png")),
        "stream": member(large, method="smoothgrad", samples=20, stream=True, overlay=True),
        "describe": raw(b"", True, "describe"),
    }
    found = []
    for limit in (200_000, 40_000, 2_000):
        scene = Scene(explain={"max_response_bytes": limit})
        found += alone(f"fitting-{limit}", scene, rows)
    found += alone("fitting-side", Scene(explain={"max_side": 100}), rows)
    return found
