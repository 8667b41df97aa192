"""Every protocol of a real TorchServe, in both modes, with the clients that people use: all get the same answer."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import yaml
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.types import InferenceRequest, RequestInput
from PIL import Image

from devtools.agreement import agree
from devtools.grpc_client import GrpcClient
from heatserve.client import Client, HeatserveError
from heatserve_tools.demo import lite0
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.packaging.packager import Packaged
from heatserve_tools.torchserve.server import Server
from tests.e2e.test_server import eventually, metric, post
from tests.open_inference import check_answer, check_error, check_request

pytestmark = pytest.mark.server
CHELSEA = photographs()["chelsea"]
ENCODED = base64.b64encode(CHELSEA).decode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(params=["lite0", "lite0_live"])
def model(request: pytest.FixtureRequest) -> str:
    """The same network in TorchServe's ordinary mode and in continuous batching."""
    return str(request.param)


@pytest.fixture
def client(server: Server) -> Iterator[GrpcClient]:
    with GrpcClient(server.grpc_inference) as opened:
        yield opened


def bytes_input(*images: str, **parameters: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": [*images], "parameters": parameters}


def heatmap(entry: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["heatmap"]["data"]))), int)


def test_every_protocol_predicts_the_same(server: Server, client: GrpcClient, model: str) -> None:
    plain = post(server, f"predictions/{model}", data=CHELSEA).json()
    v2 = post(server, f"v2/models/{model}/infer", json={"inputs": [bytes_input(ENCODED)]}).json()
    check_answer(v2)
    by_protocol = {
        "form": post(server, f"predictions/{model}", files={"data": CHELSEA}).json(),
        "JSON": post(server, f"predictions/{model}", json={"data": ENCODED}).json(),
        "data URI": post(server, f"predictions/{model}", json={"data": f"data:image/png;base64,{ENCODED}"}).json(),
        "form-encoded": post(server, f"predictions/{model}", data={"data": ENCODED}).json(),
        "v1": post(server, f"v1/models/{model}:predict", json={"instances": [{"data": ENCODED}]}).json()["predictions"][
            0
        ],
        "v2": json.loads(v2["outputs"][0]["data"][0]),
        "invocations": post(server, f"invocations?model_name={model}", json={"data": ENCODED}).json(),
        "invoke": post(server, f"models/{model}/invoke", data=CHELSEA, headers={"Content-Type": "image/png"}).json(),
        "gRPC unary": json.loads(client.unary(model, {"data": CHELSEA})),
        "gRPC stream": json.loads([*client.stream(model, {"data": CHELSEA})][-1]),
    }
    for protocol, found in by_protocol.items():
        assert found == pytest.approx(plain, abs=1e-5), protocol


def test_every_protocol_explains_the_same_and_takes_options(server: Server, client: GrpcClient, model: str) -> None:
    options = {"method": "cam", "target": "tabby"}
    plain = post(server, f"explanations/{model}", json={"data": ENCODED, **options}).json()["explanations"][0]
    raw = np.load(
        io.BytesIO(post(server, f"explanations/{model}", json={"data": ENCODED, **options, "output": "npy"}).content)
    )
    body = {"data": ENCODED, **options}
    inputs = {"data": CHELSEA, "explain": b"true", **{name: value.encode() for name, value in options.items()}}
    by_protocol = {
        "form": post(server, f"explanations/{model}", files={"data": CHELSEA}, data=options).json(),
        "form-encoded": post(server, f"explanations/{model}", data=body).json(),
        "v1": post(server, f"v1/models/{model}:explain", json={"instances": [body]}).json()["explanations"][0],
        "invocations": post(server, f"invocations?model_name={model}", json={**body, "explain": True}).json(),
        "address": post(
            server, f"invocations?model_name={model}&explain=true&method=cam&target=tabby", json={"data": ENCODED}
        ).json(),
        "invoke": post(
            server, f"models/{model}/invoke", files={"data": CHELSEA}, data={**options, "explain": "true"}
        ).json(),
        "gRPC unary": json.loads(client.unary(model, inputs)),
        "gRPC stream": json.loads([*client.stream(model, inputs)][-1]),
    }
    for protocol, found in by_protocol.items():
        entry = found["explanations"][0]
        assert (entry["method"], entry["target"]["label"]) == ("cam", "tabby"), protocol
        assert np.abs(heatmap(entry) - heatmap(plain)).max() <= 1, protocol
    for sent in (
        {"inputs": [bytes_input(ENCODED, **options)]},
        {"inputs": [bytes_input(ENCODED)], "parameters": options},
    ):
        check_request(sent)
        found = post(server, f"v2/models/{model}/explain", json=sent).json()
        check_answer(found)
        output = next(output for output in found["outputs"] if output["name"] == "heatmap")
        assert np.abs(np.reshape(output["data"], output["shape"])[0] - raw).max() <= 1e-4 * np.abs(raw).max()


def test_errors_have_the_shape_of_their_protocol(server: Server, client: GrpcClient, model: str) -> None:
    wrong = {"data": ENCODED, "method": "lime"}
    for protocol, answer in {
        "raw": post(server, f"explanations/{model}", data=b"text"),
        "JSON": post(server, f"explanations/{model}", json=wrong),
        "v1": post(server, f"v1/models/{model}:explain", json={"instances": [wrong]}),
        "v2": post(server, f"v2/models/{model}/explain", json={"inputs": [bytes_input(ENCODED, method="lime")]}),
        "invocations": post(server, f"invocations?model_name={model}", json={**wrong, "explain": True}),
    }.items():
        assert answer.status_code == (415 if protocol == "raw" else 400), protocol
        assert answer.json()["code"] == answer.status_code and answer.json()["message"], protocol
        assert ("error" in answer.json()) is protocol.startswith("v"), protocol
        if protocol == "v2":
            check_error(answer.json())
    inputs = {"data": CHELSEA, "explain": b"true", "method": b"lime"}
    assert json.loads(client.unary(model, inputs))["code"] == 400
    assert json.loads([*client.stream(model, inputs)][-1])["code"] == 400


def test_several_pictures_in_one_request_and_one_of_them_fails(server: Server, model: str) -> None:
    images = {name: base64.b64encode(image).decode() for name, image in photographs().items()}
    labels = {
        name: next(iter(post(server, f"predictions/{model}", data=image).json()))
        for name, image in photographs().items()
    }
    sent = [images["coffee"], "!", images["chelsea"], images["astronaut"]]
    wanted = [labels["coffee"], None, labels["chelsea"], labels["astronaut"]]
    v1 = post(server, f"v1/models/{model}:predict", json={"instances": [{"data": each} for each in sent]})
    assert v1.status_code == 200
    assert [None if "code" in found else next(iter(found)) for found in v1.json()["predictions"]] == wanted
    v1 = post(server, f"v1/models/{model}:explain", json={"instances": [{"data": each} for each in sent]})
    assert [None if "code" in e else e["predictions"][0]["label"] for e in v1.json()["explanations"]] == wanted
    v2 = post(server, f"v2/models/{model}/explain", json={"inputs": [bytes_input(*sent[:2]), bytes_input(*sent[2:])]})
    outputs = {output["name"]: output for output in v2.json()["outputs"]}
    about = [json.loads(text) for text in outputs["prediction"]["data"]]
    assert [None if "code" in each else each["predictions"][0]["label"] for each in about] == wanted
    assert outputs["heatmap"]["shape"] == [3, 224, 224] and outputs["heatmap_instance"]["data"] == [0, 2, 3]


def test_all_protocols_share_one_dynamic_batch(server: Server, client: GrpcClient) -> None:
    before = metric(server, "heatserve_batches_total", ModelName="batch")
    rows = metric(server, "heatserve_batch_rows_total", ModelName="batch")
    plain = next(iter(post(server, "predictions/stock", data=CHELSEA).json()))

    def first(answer: Any) -> Any:
        return next(iter(answer))

    asks: list[Any] = [
        lambda: first(post(server, "predictions/batch", data=CHELSEA).json()),
        lambda: first(post(server, "v1/models/batch:predict", json={"instances": [ENCODED]}).json()["predictions"][0]),
        lambda: first(
            json.loads(
                post(server, "v2/models/batch/infer", json={"inputs": [bytes_input(ENCODED)]}).json()["outputs"][0][
                    "data"
                ][0]
            )
        ),
        lambda: first(post(server, "invocations?model_name=batch", json={"data": ENCODED}).json()),
        lambda: first(json.loads(client.unary("batch", {"data": CHELSEA}))),
        lambda: post(server, "explanations/batch", data=CHELSEA).json()["predictions"][0]["label"],
        lambda: json.loads(client.unary("batch", {"data": CHELSEA, "explain": b"true"}))["predictions"][0]["label"],
        lambda: post(server, "v1/models/batch:explain", json={"instances": [ENCODED, 5]}).json()["explanations"][0][
            "predictions"
        ][0]["label"],
    ]
    with ThreadPoolExecutor(8) as pool:
        assert [each.result() for each in [pool.submit(ask) for ask in asks]] == [plain] * 8
    eventually(server, "heatserve_batch_rows_total", rows + 8, ModelName="batch")
    # A frontend batch holds one kind of command: unary calls are predictions to it, as all the others are.
    assert metric(server, "heatserve_batches_total", ModelName="batch") == before + 1


def test_the_kserve_sdk_talks_to_both_protocols(server: Server, model: str) -> None:
    plain = post(server, f"predictions/{model}", data=CHELSEA).json()

    async def talk() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=60)) as v1:
            found = await v1.infer(server.inference, {"instances": [{"data": ENCODED}]}, model_name=model)
            assert found["predictions"][0] == pytest.approx(plain, abs=1e-5)
            found = await v1.explain(server.inference, model, {"instances": [{"data": ENCODED, "method": "cam"}]})
            assert found["explanations"][0]["explanations"][0]["method"] == "cam"
            with pytest.raises(httpx.HTTPStatusError, match="method must be one of"):
                await v1.explain(server.inference, model, {"instances": [{"data": ENCODED, "method": "lime"}]})
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as v2:
            asked = InferRequest(model, [InferInput("image", [1], "BYTES", [ENCODED])], request_id="a-1")
            answer = await v2.infer(server.inference, asked, model_name=model)
            assert (answer.id, answer.model_name) == ("a-1", model)
            assert json.loads(answer.outputs[0].data[0]) == pytest.approx(plain, abs=1e-5)
            with pytest.raises(httpx.HTTPStatusError, match="datatype must be BYTES"):
                wrong = InferRequest(model, [InferInput("image", [1], "INT32", [5])])
                await v2.infer(server.inference, wrong, model_name=model)

    asyncio.run(talk())


def test_the_protocols_own_client_reads_the_answers(server: Server, model: str) -> None:
    """Generated from the public OpenAPI description of the Open Inference Protocol, version 2.0."""
    talker = OpenInferenceClient(base_url=server.inference, httpx_client=httpx.Client(timeout=60))
    tensor = RequestInput(name="image", shape=[1], datatype="BYTES", data=[ENCODED], parameters={"top_k": 1})
    answer = talker.model_infer(model_name=model, request=InferenceRequest(id="b-2", inputs=[tensor], parameters={}))
    assert answer.id == "b-2" and answer.outputs[0].name == "prediction" and answer.outputs[0].shape == [1]
    assert len(json.loads(answer.outputs[0].data.__root__[0])) == 1


def test_our_client_gives_typed_results(server: Server, model: str, tmp_path: Path) -> None:
    asking = Client(server.inference, model)
    photograph = tmp_path / "cat.png"
    photograph.write_bytes(CHELSEA)
    assert asking.predict(photograph) == pytest.approx(
        post(server, f"predictions/{model}", data=CHELSEA).json(), abs=1e-5
    )
    result = asking.explain(photograph, method="smoothgrad", samples=4, boxes=True, target="top2")
    assert (
        result.explanation.samples_used == 4 and result.explanation.standard_error > 0 and len(result.explanations) == 2
    )
    assert result.map.shape == (300, 451) and result.map.max() == pytest.approx(result.explanation.scale)
    assert result.overlay.size == result.size == (451, 300) and result.boxes[0].x1 > result.boxes[0].x0
    assert asking.raw(CHELSEA, method="cam").shape == (224, 224)
    lines = [*asking.stream(CHELSEA, method="smoothgrad", samples=20)]
    assert len(lines) >= 3 and lines[-1].explanation.samples_used == 20
    assert "smoothgrad" in asking.describe()["methods"]
    with pytest.raises(HeatserveError, match="method must be one of") as error:
        asking.explain(CHELSEA, method="lime")
    assert error.value.code == 400
    with pytest.raises(HeatserveError) as missing:
        Client(server.inference, "nobody").predict(CHELSEA)
    assert missing.value.code == 404


def test_the_shell_writes_the_overlay_beside_the_picture(server: Server, model: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(CHELSEA)
    command = [
        sys.executable,
        "-m",
        "heatserve_tools",
        "explain",
        str(tmp_path / "cat.png"),
        "--url",
        server.inference,
        "--model",
        model,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (
        Image.open(tmp_path / f"cat-{model}-gradcam-282.png").size == (451, 300)
        and "gradcam of tiger cat" in done.stdout
    )
    failed = subprocess.run([*command, "--method", "lime"], capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1 and "method must be one of" in failed.stderr and "Traceback" not in failed.stderr


@pytest.mark.parametrize("kind", ["webp", "jpeg", "png"])
def test_a_picture_is_negotiated_and_says_what_it_shows(server: Server, model: str, kind: str) -> None:
    headers = {
        "Accept": f"text/html, image/{kind};q=0.9, application/json;q=0.1",
        "X-Explain-Samples": "3",
        "X-Explain-Seed": "5",
    }
    answer = post(server, f"explanations/{model}", data=CHELSEA, headers=headers)
    assert answer.headers["content-type"] == f"image/{kind}"
    assert answer.headers["X-Explanation-Seed"] == "5" and float(answer.headers["X-Explanation-Standard-Error"]) > 0
    image = Image.open(io.BytesIO(answer.content))
    assert image.format == kind.upper() and image.size == (451, 300)
    if kind == "png":
        assert image.text["Explanation Method"] == "gradcam" and image.text["Explanation Seed"] == "5"
        assert image.text["Prediction Label"] == "tiger cat" and "weights" in image.text["Model"]


def test_a_stream_over_http_sends_estimates_in_both_modes(server: Server, model: str) -> None:
    first = Client(server.inference, model).stream(CHELSEA, method="smoothgrad", samples=50)
    line = next(first)
    assert 2 <= line.explanation.samples_used < 50 and line.explanation.converged is False
    first.close()
    assert post(server, f"predictions/{model}", data=CHELSEA).status_code == 200


def test_grpc_used_wrongly_hurts_nobody(server: Server, client: GrpcClient, model: str) -> None:
    worker = server.worker_pids(model)
    smooth = {"data": CHELSEA, "explain": b"true", "method": b"smoothgrad", "samples": b"10", "stream": b"true"}
    for inputs in (
        smooth,
        {},
        {"content-length": b"5"},
        {"data": b""},
        {"body": b"{"},
        {"ts_stream_next": b"true", "data": CHELSEA},
    ):
        assert client.unary(model, inputs)
        assert [*client.stream(model, inputs)]
    # A stream that asks for estimates where the archive does not allow them: the complete answer, alone.
    (line,) = client.stream(model, smooth)
    assert json.loads(line)["explanations"][0]["quality"]["samples_used"] == 10
    with pytest.raises(grpc.RpcError):
        client.unary("nobody", {"data": CHELSEA})
    with pytest.raises(grpc.RpcError):
        client.unary(model, {"data": CHELSEA, "explain": b"true", "method": b"smoothgrad"}, timeout=0.2)
    time.sleep(0.5)
    assert json.loads(client.unary(model, {"data": CHELSEA})) and server.worker_pids(model) == worker


def test_where_an_archive_enables_it_a_grpc_stream_gives_the_running_estimate(
    packaged: Packaged, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"batchSize": 4, "maxBatchDelay": 50, "explain": {"grpc_stream": True}}))
    inputs = {"data": CHELSEA, "explain": b"true", "method": b"smoothgrad", "samples": b"20", "stream": b"true"}
    with (
        Server({"parts": lite0.build(tmp_path, "parts", config).path}) as running,
        GrpcClient(running.grpc_inference) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        (worker,) = running.worker_pids("parts")
        others = [pool.submit(post, running, "explanations/parts", data=CHELSEA) for _ in range(2)]
        parts = [json.loads(part) for part in client.stream("parts", inputs)]
        used = [part["explanations"][0]["quality"]["samples_used"] for part in parts]
        assert used == sorted(set(used)) and used[-1] == 20 and len(used) >= 3
        assert all(other.result().status_code == 200 for other in others)
        # Without `stream`, and where it means nothing: one message.
        assert len([*client.stream("parts", {**inputs, "stream": b"false"})]) == 1
        assert len([*client.stream("parts", {"data": CHELSEA, "stream": b"true"})]) == 1
        assert running.worker_pids("parts") == [worker]


def test_a_short_slice_of_hostile_requests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "devtools.fuzz", "--requests", "200", "--output", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["wrong"] == [] and len(found["statuses"]) == 10 and found["requests"] == 200


def test_sixty_hostile_requests_at_once_beside_a_slow_explanation(server: Server, model: str) -> None:
    slow = {"X-Explain-Method": "smoothgrad", "X-Explain-Samples": "50", "X-Explain-Output": "npy"}
    quiet = np.load(io.BytesIO(post(server, f"explanations/{model}", data=CHELSEA, headers=slow).content))
    worker = server.worker_pids(model)
    hostile: list[tuple[dict[str, Any], int]] = [
        ({"data": CHELSEA[: len(CHELSEA) // 2]}, 415),
        ({"data": b"this is a text file, and nothing else!"}, 415),
        ({"data": CHELSEA, "headers": {"X-Explain-Method": "7"}}, 400),
        ({"data": CHELSEA, "headers": {"X-Explain-Samples": "1000000"}}, 413),
        ({"data": CHELSEA, "headers": {"Accept": "text/html"}}, 406),
        ({"json": {"instances": [{"data": ENCODED[:1000]}]}}, 415),
    ]
    with ThreadPoolExecutor(62) as pool:
        explained = pool.submit(post, server, f"explanations/{model}", data=CHELSEA, headers=slow)
        predicted = pool.submit(post, server, f"predictions/{model}", data=CHELSEA)
        answers = [(pool.submit(post, server, f"explanations/{model}", **ask), code) for ask, code in hostile * 10]
        for answer, code in answers:
            assert answer.result().status_code == code and answer.result().json()["code"] == code
    found = np.load(io.BytesIO(explained.result().content))
    assert agree(found, quiet)
    assert next(iter(predicted.result().json())) == "tiger cat" and server.worker_pids(model) == worker
