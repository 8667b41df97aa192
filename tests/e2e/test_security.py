"""The shipped config.properties before a real archive: no address answers without a token."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from devtools.grpc_client import GrpcClient
from devtools.paths import HANDLERS, ROOT
from heatserve.client import Client, HeatserveError
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.packaging.packager import Packaged
from heatserve_tools.torchserve import properties
from heatserve_tools.torchserve.server import Server
from heatserve_tools.torchserve.shipped import METRICS, SERVER_CONFIG

pytestmark = pytest.mark.server
CHELSEA = photographs()["chelsea"]
DATA = base64.b64encode(CHELSEA).decode()
BODIES: dict[str, Any] = {
    "predictions/lite0": {"data": DATA},
    "explanations/lite0": {"data": DATA},
    "explanations/lite0/1.0/describe": {},
    "v1/models/lite0:explain": {"instances": [DATA]},
    "v2/models/lite0/explain": {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "data": [DATA]}]},
    "invocations?model_name=lite0": {"data": DATA, "explain": True},
    "models/lite0/invoke": {"data": DATA, "explain": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server is started: its keys are there, and a photograph."""
    made = tmp_path_factory.mktemp("guarded")
    (made / "cat.jpg").write_bytes(CHELSEA)
    return made


@pytest.fixture(scope="module")
def guarded(packaged: Packaged, folder: Path) -> Iterator[Server]:
    """Everything as shipped, but for the ports."""
    shipped = properties.read(SERVER_CONFIG)
    settings = {name: value for name, value in shipped.items() if not name.endswith(("_address", "_port"))}
    with Server({"lite0": packaged.path}, {**settings, "metrics_config": str(METRICS)}, cwd=folder) as running:
        yield running


def bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def refused(answer: requests.Response) -> bool:
    return answer.status_code == 400 and answer.json()["type"] == "InvalidKeyException"


@pytest.mark.parametrize("path", BODIES)
def test_no_address_answers_without_a_token(guarded: Server, path: str) -> None:
    address = f"{guarded.inference}/{path}"
    for headers in ({}, bearer(""), bearer("x"), bearer(guarded.key("management")), bearer(guarded.key("API"))):
        assert refused(requests.post(address, json=BODIES[path], headers=headers, timeout=60)), headers
    assert requests.post(address, json=BODIES[path], headers=bearer(guarded.key()), timeout=60).status_code == 200


def test_no_call_over_grpc_is_answered_without_a_token(guarded: Server) -> None:
    inputs = {"data": CHELSEA, "explain": b"true"}
    for token in (None, "x", guarded.key("management")):
        with GrpcClient(guarded.grpc_inference, token) as client:
            for call in (client.unary, lambda *asked: [*client.stream(*asked)]):
                with pytest.raises(grpc.RpcError):
                    call("lite0", inputs)
    with GrpcClient(guarded.grpc_inference, guarded.key()) as client:
        assert "explanations" in json.loads(client.unary("lite0", inputs))
        assert "explanations" in json.loads([*client.stream("lite0", inputs)][-1])


def test_the_keys_are_for_the_servers_own_user(guarded: Server, folder: Path) -> None:
    assert (folder / "key_file.json").stat().st_mode & 0o077 == 0


def test_the_model_api_is_off_even_for_who_holds_the_key(guarded: Server, packaged: Packaged) -> None:
    models, headers = f"{guarded.management}/models", bearer(guarded.key("management"))
    for url in (packaged.path.as_uri(), str(packaged.path), "lite0.mar", "http://127.0.0.1:1/a.mar"):
        answer = requests.post(models, params={"url": url, "model_name": "other"}, headers=headers, timeout=60)
        assert answer.status_code == 405
    assert requests.delete(f"{models}/lite0", headers=headers, timeout=60).status_code == 405
    assert [found["modelName"] for found in requests.get(models, headers=headers, timeout=60).json()["models"]] == [
        "lite0"
    ]
    assert refused(requests.get(models, headers=bearer(guarded.key()), timeout=60))


def test_our_client_and_the_shell_bring_the_token(guarded: Server, folder: Path) -> None:
    with pytest.raises(HeatserveError, match="Token Authorization failed") as error:
        Client(guarded.inference, "lite0").explain(CHELSEA)
    assert error.value.code == 400
    client = Client(guarded.inference, "lite0", token=guarded.key())
    assert client.explain(CHELSEA).predictions[0].label == next(iter(client.predict(CHELSEA))) == "tiger cat"
    assert "gradcam" in client.describe()["methods"]
    assert [*client.stream(CHELSEA, method="smoothgrad", samples=4)]


def test_tokens_are_used_and_renewed_as_the_page_says(guarded: Server, folder: Path) -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    asking, renewing = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    explain = f"{sys.executable} -m heatserve_tools explain --url {guarded.inference}"

    def shell(lines: str) -> str:
        for there, here in (
            ("http://127.0.0.1:8080", guarded.inference),
            ("http://127.0.0.1:8081", guarded.management),
            ("heatserve explain", explain),
            ("curl", "curl -sSf"),
        ):
            lines = lines.replace(there, here)
        env = {**os.environ, "PYTHONPATH": f"{HANDLERS}{os.pathsep}{ROOT}"}
        done = subprocess.run(["bash", "-euc", lines], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert shell(asking).count("tiger cat") >= 3 and (folder / "cat-lite0-gradcam-282.png").is_file()
    names: dict[str, Any] = {"__name__": "example"}
    code = example.replace("http://127.0.0.1:8080", guarded.inference).replace("cat.jpg", str(folder / "cat.jpg"))
    exec(code.replace("key_file.json", str(folder / "key_file.json")), names)
    assert names["result"].overlay.size == (451, 300)

    old = guarded.key()
    shell(renewing)
    assert guarded.key() != old
    assert refused(requests.get(f"{guarded.inference}/ping", headers=bearer(old), timeout=60))
    assert requests.get(f"{guarded.inference}/ping", headers=bearer(guarded.key()), timeout=60).ok
