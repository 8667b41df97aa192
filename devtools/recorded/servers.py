"""Answers of a real TorchServe, over HTTP and gRPC: fewer cases, equal within rounding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from devtools.recorded.pictures import oriented, picture
from devtools.recorded.recording import written
from devtools.recorded.rows import b64, pictures

#: Maps may differ by this share of their largest value.
TOLERANCE = 1e-5
#: Headers that differ from answer to answer.
_OWN = ("x-request-id", "date", "content-length", "transfer-encoding")
_TIMEOUT = 120


@dataclass(frozen=True)
class Address:
    """A running server. grpc: the port of its gRPC inference service, None to leave gRPC out."""

    url: str
    models: Sequence[str]
    grpc: int | None = None


def build(folder: Path) -> None:
    """Packages EfficientNet-Lite0 into a folder, for ordinary and for continuous batching."""
    from heatserve_tools.demo import lite0

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("lite0", "lite0_live"):
        lite0.build(folder, name, continuous=name == "lite0_live")


@contextmanager
def started(archives: Path) -> Iterator[Address]:
    """A server with all archives of a folder."""
    from heatserve_tools.torchserve.server import Server

    with Server(archives) as server:
        models = [path.stem for path in sorted(archives.glob("*.mar"))]
        yield Address(server.inference, models, server.grpc_inference)


def record(address: Address, progress: Callable[[str], None]) -> dict[str, Any]:
    """The answers of every model of a server, by the name of the case."""
    found: dict[str, Any] = {}
    for model in address.models:
        cases = _cases(model)
        for name, sent in cases.items():
            progress(f"{model}/{name}")
            found[f"{model}/{name}"] = _asked(address.url, **sent)
        progress(f"{model}/at once")
        with ThreadPoolExecutor(8) as clients:
            answers = clients.map(lambda sent: _asked(address.url, **sent), cases.values())
            found |= {f"{model}/at-once/{name}": answer for name, answer in zip(cases, answers)}
        if address.grpc is not None:
            found |= {f"{model}/grpc/{name}": each for name, each in _by_grpc(address.grpc, model).items()}
    return found


def _asked(url: str, path: str, **request: Any) -> dict[str, Any]:
    answer = requests.request(request.pop("verb", "POST"), f"{url}/{path}", timeout=_TIMEOUT, **request)
    headers = {name: value for name, value in sorted(answer.headers.items()) if name.lower() not in _OWN}
    body = answer.content
    if answer.headers.get("content-type") == "application/x-ndjson":
        # How many samples a line before the last one has is a matter of time.
        body = body.splitlines()[-1]
    return written({"status": answer.status_code, "reason": answer.reason, "headers": headers, "body": body})


def _cases(model: str) -> dict[str, dict[str, Any]]:
    image, other = picture(450, 300, 7, "JPEG"), picture(300, 450, 8)
    encoded = b64(image)
    explain, predict = f"explanations/{model}", f"predictions/{model}"

    def asked(**options: Any) -> dict[str, Any]:
        return {"path": explain, "json": {"data": encoded, **options}}

    maps = {
        f"npy-{method}{suffix}": asked(method=method, output="npy", **options)
        for method in ("gradcam", "cam", "gradient", "smoothgrad", "smoothgrad_squared", "vargrad")
        for suffix, options in (("", {"samples": 1} if method in ("gradcam", "cam", "gradient") else {"samples": 8}),
                                ("-target", {"target": 281, "samples": 5, "seed": 3}))
    }  # fmt: skip
    v2 = {"inputs": [pictures(image, other)]}
    return {
        **maps,
        "npy-top3": asked(target="top3", output="npy"),
        "npy-oriented": {"path": explain, "data": oriented(6), "headers": {"Accept": "application/x-npy"}},
        "predict-raw": {"path": predict, "data": image, "headers": {"Content-Type": "image/jpeg"}},
        "predict-form": {"path": predict, "files": {"data": image}, "data": {"top_k": "3"}},
        "predict-json": {"path": predict, "json": {"data": encoded}},
        "predict-broken": {"path": predict, "data": b"text"},
        "raw": {"path": explain, "data": other, "headers": {"Content-Type": "image/png"}},
        "form": {"path": explain, "files": {"data": image}, "data": {"method": "cam", "boxes": "true"}},
        "path": {"path": f"{explain}/1.0/cam", "data": image},
        "headers": {"path": explain, "data": image, "headers": {"X-Explain-Method": "gradient"}},
        "overlay": asked(overlay=True, boxes=True, target="top2"),
        "png": {"path": explain, "data": image, "headers": {"Accept": "image/png"}},
        "stream": asked(method="smoothgrad", samples=12, stream=True),
        "describe": {"path": f"{explain}/1.0/describe", "data": b""},
        "error-method": asked(method="lime"),
        "error-accept": {"path": explain, "data": image, "headers": {"Accept": "text/html"}},
        "error-broken": {"path": explain, "data": b"text"},
        "error-samples": asked(samples=100_000),
        "error-empty": {"path": explain, "data": b""},
        "v1-predict": {"path": f"v1/models/{model}:predict", "json": {"instances": [{"data": encoded}, {"data": "!"}]}},
        "v1-explain": {"path": f"v1/models/{model}:explain", "json": {"instances": [encoded], "method": "cam"}},
        "v1-error": {"path": f"v1/models/{model}:explain", "json": {"instances": []}},
        "v2-infer": {"path": f"v2/models/{model}/infer", "json": v2},
        "v2-explain": {"path": f"v2/models/{model}/explain", "json": {**v2, "id": "a"}},
        "v2-error": {"path": f"v2/models/{model}/explain", "json": {"inputs": [pictures(image, method="lime")]}},
        "invocations": {"path": f"invocations?model_name={model}", "json": {"data": encoded, "explain": True}},
        "invocations-predict": {"path": f"invocations?model_name={model}", "json": {"data": encoded}},
    }


def _by_grpc(port: int, model: str) -> dict[str, Any]:
    image = picture(450, 300, 7, "JPEG")
    inputs: dict[str, Mapping[str, bytes]] = {
        "predict": {"data": image},
        "explain": {"data": image, "explain": b"true", "method": b"cam"},
        "npy": {"data": image, "explain": b"true", "method": b"gradient", "output": b"npy"},
        "broken": {"data": b"text", "explain": b"true"},
        "method": {"data": image, "explain": b"true", "method": b"lime"},
        "v2": {"body": json.dumps({"inputs": [pictures(image)]}).encode()},
    }
    import grpc  # type: ignore[import-untyped]

    from devtools.grpc_client import GrpcClient

    found = {}
    with GrpcClient(port) as client:
        for name, sent in inputs.items():
            for kind in ("unary", "stream"):
                try:
                    body = client.unary(model, sent) if kind == "unary" else b"".join(client.stream(model, sent))
                    found[f"{name}-{kind}"] = written({"status": "OK", "body": body})
                except grpc.RpcError as error:
                    found[f"{name}-{kind}"] = {"status": str(error.code()), "message": error.details()}
    return found
