"""A client of TorchServe's gRPC service, made from the .proto files in TorchServe's own jar."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc

LONGEST = 64_000_000


@cache
def _service() -> tuple[Any, Any]:
    """The service's messages and stubs, compiled once."""
    spec = find_spec("ts")
    assert spec is not None and spec.origin is not None
    jar = Path(spec.origin).parent / "frontend" / "model-server.jar"
    with tempfile.TemporaryDirectory(prefix="heatserve-proto-") as folder, zipfile.ZipFile(jar) as members:
        for name in ("inference.proto", "google/rpc/status.proto"):
            members.extract(name, folder)
        sys.path.insert(0, folder)
        try:
            return grpc.protos_and_services("inference.proto")  # type: ignore[no-any-return]
        finally:
            sys.path.remove(folder)


class GrpcClient:
    """A client of one server's `InferenceAPIsService`, and a context manager that closes it."""

    def __init__(self, port: int, token: str | None = None) -> None:
        limits = [("grpc.max_receive_message_length", LONGEST), ("grpc.max_send_message_length", LONGEST)]
        self._messages, services = _service()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", limits)
        self._stub = services.InferenceAPIsServiceStub(self._channel)
        self._metadata = (("protocol", "gRPC"), ("authorization", f"Bearer {token}")) if token else None

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def unary(self, model: str, inputs: Mapping[str, bytes], timeout: float = 120) -> bytes:
        """`Predictions`. Raises grpc.RpcError."""
        reply = self._stub.Predictions(self._request(model, inputs), timeout=timeout, metadata=self._metadata)
        return bytes(reply.prediction)

    def stream(self, model: str, inputs: Mapping[str, bytes], timeout: float = 120) -> Iterator[bytes]:
        """`StreamPredictions`. Raises grpc.RpcError."""
        request = self._request(model, inputs)
        for reply in self._stub.StreamPredictions(request, timeout=timeout, metadata=self._metadata):
            yield bytes(reply.prediction)

    def _request(self, model: str, inputs: Mapping[str, bytes]) -> Any:
        return self._messages.PredictionsRequest(model_name=model, input=dict(inputs))
