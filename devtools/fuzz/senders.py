"""One hostile request in each protocol, and the response to it."""

from __future__ import annotations

import json
import random
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import grpc

from devtools.fuzz import bodies, pictures
from devtools.grpc_client import GrpcClient
from heatserve_tools.torchserve.server import Server

TIMEOUT = 120.0


@dataclass(frozen=True)
class Response:
    """The response to one request.

    status: of HTTP. Over gRPC it is the code in the body, 200 where there is none, 0 where the call itself failed.
    request: a description for the findings.
    reason: the line beside the status, or the error of gRPC.
    """

    status: int
    body: bytes
    request: str
    reason: str = ""


@dataclass(frozen=True)
class Sender:
    """Sends to one model of one server. Each request has a connection of its own, as hostile clients keep none."""

    server: Server
    model: str
    grpc: GrpcClient

    def http(self, verb: str, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """Raises OSError or HTTPException where there is no answer."""
        address = urllib.parse.urlsplit(self.server.inference)
        connection = HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT)
        request = f"{verb} {path} {dict(headers)} {body[:200]!r}"
        try:
            connection.request(verb, path, body, dict(headers))
            response = connection.getresponse()
            return Response(response.status, response.read(), request, response.reason)
        finally:
            connection.close()

    def over_grpc(self, stream: bool, inputs: Mapping[str, bytes]) -> Response:
        request = f"gRPC {'stream' if stream else 'unary'} { ({k: v[:200] for k, v in inputs.items()}) }"
        try:
            parts = [*self.grpc.stream(self.model, inputs)] if stream else [self.grpc.unary(self.model, inputs)]
        except grpc.RpcError as error:
            return Response(0, b"", request, f"{error.code()}: {error.details()}")
        body = parts[-1]
        return Response(_code(body), body, request)


#: Sends a request that the generator decides.
Send = Callable[[Sender, random.Random], Response]
#: The content of a JSON body that the generator decides.
Content = Callable[[random.Random], Any]


def _code(body: bytes) -> int:
    try:
        content = json.loads(body)
    except ValueError:
        return 200
    return int(content["code"]) if isinstance(content, dict) and content.keys() >= {"code", "type", "message"} else 200


def _headers(chosen: random.Random) -> dict[str, str]:
    found = {f"X-Explain-{name}": value for name, value in bodies.texts(bodies.options(chosen)).items() if _token(name)}
    if chosen.random() < 0.3:
        odd = [
            "image/png",
            "image/*;q=0.2, */*;q=0.1",
            "application/x-ndjson",
            "text/html",
            ";;,q=",
            "*/*;q=2",
            "é" * 50,
        ]
        found["Accept"] = chosen.choice(odd).encode("ascii", "replace").decode()
    if chosen.random() < 0.1:
        name = chosen.choice(
            ["explain", "Explain", "url_path", "ts_stream_next", "X-Explain-", "data", "body", "describe"]
        )
        found[name] = chosen.choice(["True", "", "a/b/c", "true", bodies.FORGED])
    return {name: value.strip() for name, value in found.items()}


def _token(name: str) -> bool:
    return bool(name) and all(c.isalnum() or c in "-_" for c in name)


def raw(sender: Sender, chosen: random.Random) -> Response:
    api = chosen.choice(["explanations", "explanations", "predictions"])
    tail = chosen.choice(
        ["", "", "", "/1.0", "/1.0/cam", "/1.0/a/b", "/1.0/describe", "/1.0/%0a", "/2.0", "/1.0/..%2f"]
    )
    verb = chosen.choice(["POST"] * 8 + ["PUT", "GET", "DELETE"])
    kind = chosen.choice(["application/octet-stream", "image/png", "text/plain", "", "multipart/form-data"])
    headers = {"Content-Type": kind, **_headers(chosen)} if kind else _headers(chosen)
    return sender.http(verb, f"/{api}/{sender.model}{tail}", pictures.any_picture(chosen), headers)


def form(sender: Sender, chosen: random.Random) -> Response:
    """multipart/form-data, with names and types as they like."""
    boundary = "hostile"
    fields: list[tuple[str, str, bytes]] = [
        (name, chosen.choice(["", "text/plain", "application/json"]), value.encode())
        for name, value in bodies.texts(bodies.options(chosen)).items()
    ]
    kind = chosen.choice(["", "image/png", "text/plain", "application/json"])
    fields.insert(0, (chosen.choice(["data", "data", "body", "file"]), kind, pictures.any_picture(chosen)))
    parts = []
    for name, kind, value in fields:
        quoted = name.replace('"', "").replace("\r", "").replace("\n", "")
        file = chosen.choice(["", '; filename="a.png"', f'; filename="{bodies.FORGED}"', '; filename="../../a"'])
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{quoted}"{file}\r\n'
        parts.append((head + (f"Content-Type: {kind}\r\n" if kind else "") + "\r\n").encode() + value + b"\r\n")
    body = b"".join(parts) + (f"--{boundary}--\r\n".encode() if chosen.random() < 0.95 else b"")
    headers = {**_headers(chosen), "Content-Type": f"multipart/form-data; boundary={boundary}"}
    return sender.http("POST", f"/explanations/{sender.model}", body, headers)


def urlencoded(sender: Sender, chosen: random.Random) -> Response:
    fields = {**bodies.texts(bodies.options(chosen)), "data": str(bodies.encoded(chosen))}
    body = urllib.parse.urlencode(fields, errors="replace").encode() if chosen.random() < 0.9 else pictures.plain()
    headers = {**_headers(chosen), "Content-Type": "application/x-www-form-urlencoded"}
    return sender.http("POST", f"/explanations/{sender.model}", body, headers)


def _posted(path: str, content: Content) -> Send:
    def send(sender: Sender, chosen: random.Random) -> Response:
        body = bodies.json_body(chosen, content(chosen))
        headers = {**_headers(chosen), "Content-Type": chosen.choice(["application/json"] * 9 + ["text/plain"])}
        return sender.http("POST", path.format(sender.model), body, headers)

    return send


def _either(one: str, other: str, content: Content) -> Send:
    return lambda sender, chosen: _posted(chosen.choice([one, other]), content)(sender, chosen)


def _asking(content: Content) -> Content:
    """The same with a member `explain`."""

    def make(chosen: random.Random) -> Any:
        found = content(chosen)
        return {**found, "explain": chosen.choice([True, True, "true", [], None])} if isinstance(found, dict) else found

    return make


def _invocation(chosen: random.Random) -> Any:
    return _asking(chosen.choice([bodies.members, bodies.members, bodies.instances, bodies.tensors]))(chosen)


def _grpc(stream: bool) -> Send:
    def send(sender: Sender, chosen: random.Random) -> Response:
        inputs = {name: value.encode() for name, value in bodies.texts(bodies.options(chosen)).items()}
        inputs[chosen.choice(["data", "data", "data", "body", "", "é"])] = pictures.any_picture(chosen)
        if chosen.random() < 0.8:
            inputs["explain"] = chosen.choice([b"true", b"true", b"\xff", b""])
        if chosen.random() < 0.1:
            inputs["stream"] = b"true"
        if chosen.random() < 0.05:
            inputs = {chosen.choice(["", "content-length", "explain"]): chosen.randbytes(30)}
        return sender.over_grpc(stream, inputs)

    return send


PROTOCOLS: Mapping[str, Send] = {
    "raw body": raw,
    "form": form,
    "urlencoded form": urlencoded,
    "JSON": _posted("/explanations/{}", bodies.members),
    "KServe v1": _either("/v1/models/{}:explain", "/v1/models/{}:predict", bodies.instances),
    "KServe v2": _either("/v2/models/{}/explain", "/v2/models/{}/infer", bodies.tensors),
    "/invocations": _posted("/invocations?model_name={}", _invocation),
    "/models/…/invoke": _posted("/models/{}/invoke", _invocation),
    "gRPC unary": _grpc(False),
    "gRPC stream": _grpc(True),
}

#: The errors of a request that was not answered at all.
SILENCE = (OSError, HTTPException)
