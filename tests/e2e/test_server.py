"""Against a real TorchServe: the contract, mixed batches, hostile clients, a worker's death."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import torch
from captum.attr import LayerGradCam
from PIL import Image

from devtools.bench.networks import NETWORKS
from devtools.server_metrics import metric
from heatserve.engine import Explainer
from heatserve.imaging import Preprocess, decode
from heatserve_tools.demo.photographs import photographs
from heatserve_tools.torchserve.server import Server

pytestmark = pytest.mark.server
CHELSEA = photographs()["chelsea"]


def post(server: Server, path: str, **request: Any) -> requests.Response:
    return requests.post(f"{server.inference}/{path}", timeout=120, **request)


def eventually(server: Server, name: str, value: float, **labels: str) -> None:
    """TorchServe reads metrics from the worker's output a little later than the answer goes out."""
    deadline = time.monotonic() + 10
    while metric(server, name, **labels) < value and time.monotonic() < deadline:
        time.sleep(0.1)
    assert metric(server, name, **labels) >= value


@pytest.mark.parametrize("name", sorted(photographs()))
def test_predictions_are_the_stock_handlers_to_the_letter(server: Server, name: str) -> None:
    image = photographs()[name]
    ours, stock = (post(server, f"predictions/{model}", data=image) for model in ("batch", "stock"))
    assert ours.status_code == stock.status_code == 200
    assert list(ours.json()) == list(stock.json())
    assert ours.json() == pytest.approx(stock.json(), abs=1e-5)
    assert ours.text == stock.text
    assert ours.headers.get("content-type") == stock.headers.get("content-type")


def test_a_network_that_is_made_faster_at_load_predicts_the_same_within_1e_5() -> None:
    as_it_is, faster = (
        Explainer(NETWORKS["lite0"].build(), torch.rand(2, 3, 224, 224), optimize=optimize)
        for optimize in (False, True)
    )
    assert faster.optimized.folded == 49 and faster.optimized.padded == 12
    for image in photographs().values():
        view, _ = Preprocess().tensor(decode(image, 10**7), 10**7)
        one, other = (explainer.run(view[None], [[]])[0].softmax(1) for explainer in (as_it_is, faster))
        assert float((one - other).abs().max()) < 1e-5 and torch.equal(one.topk(5).indices, other.topk(5).indices)


def test_an_explanation_shows_the_cat_as_captum_does(server: Server) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    from heatserve_tools.demo import lite0

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(lite0.weights(), weights_only=True))
    model.eval()
    image = Image.open(io.BytesIO(CHELSEA)).convert("RGB")
    resized = image.resize((int(256 * image.width / image.height), 256), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    pixels = np.asarray(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    x = torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None].contiguous()
    predicted = int(model(x).argmax())
    expected = LayerGradCam(model, model._avg_pooling).attribute(
        x, target=predicted, attribute_to_layer_input=True, relu_attributions=True
    )
    expected = torch.nn.functional.interpolate(expected, (224, 224), mode="bilinear")[0, 0].detach().numpy()
    response = post(server, "explanations/lite0", data=CHELSEA, headers={"X-Explain-Output": "npy"})
    assert response.headers["content-type"] == "application/x-npy"
    found = np.load(io.BytesIO(response.content))
    assert np.abs(found - expected).max() <= 1e-3 * expected.max()

    answer = post(server, "explanations/lite0", data=CHELSEA).json()
    assert answer["predictions"][0]["label"] == "tiger cat"
    assert answer["image"] == {"width": 451, "height": 300, "seen": [94, 19, 357, 281]}
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["explanations"][0]["heatmap"]["data"]))))
    assert grey.shape == (300, 451)
    # The strongest place of the oracle's map, carried by hand into the photograph's coordinates.
    row, column = np.unravel_index(expected.argmax(), expected.shape)
    x_photo = int((column + 0.5 + left) * 451 / resized.width)
    y_photo = int((row + 0.5 + top) * 300 / 256)
    assert grey[y_photo, x_photo] >= 250
    assert grey[:, :93].max() == grey[:, 358:].max() == 0


def test_one_dynamic_batch_holds_predictions_explanations_and_a_broken_file(server: Server) -> None:
    before = metric(server, "heatserve_batches_total", Composition="mixed", ModelName="batch")
    rows_before = metric(server, "heatserve_batch_rows_total", ModelName="batch")
    asked: list[tuple[str, bytes, dict[str, str], int]] = [
        ("predictions", CHELSEA, {}, 200),
        ("explanations", CHELSEA, {}, 200),
        ("explanations", b"not an image", {}, 415),
        ("explanations", CHELSEA, {"X-Explain-Method": "smoothgrad", "X-Explain-Samples": "4"}, 200),
        ("explanations", CHELSEA, {"X-Explain-Method": "lime"}, 400),
        ("predictions", photographs()["coffee"], {}, 200),
        ("explanations", CHELSEA, {"Accept": "image/png"}, 200),
        ("explanations", CHELSEA, {"X-Explain-Method": "cam", "X-Explain-Target": "espresso"}, 200),
    ]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda ask: post(server, f"{ask[0]}/batch", data=ask[1], headers=ask[2]), asked))
    assert [answer.status_code for answer in answers] == [code for *_, code in asked]
    eventually(server, "heatserve_batches_total", before + 1, Composition="mixed", ModelName="batch")
    eventually(server, "heatserve_batch_rows_total", rows_before + 8, ModelName="batch")
    # Eight rows in one batch: there was exactly one batch more.
    assert metric(server, "heatserve_batches_total", Composition="mixed", ModelName="batch") == before + 1
    assert next(iter(answers[5].json())) == "espresso"
    assert answers[6].headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answers[6].content)).size == (451, 300)
    assert answers[7].json()["explanations"][0]["target"]["label"] == "espresso"


def test_every_way_of_sending_an_image_gives_the_same_map(server: Server) -> None:
    encoded = base64.b64encode(CHELSEA).decode()
    answers = [
        post(server, "explanations/lite0", data=CHELSEA, headers={"X-Explain-Method": "cam"}),
        post(server, "explanations/lite0/1.0/cam", data=CHELSEA),
        post(server, "explanations/lite0", files={"data": CHELSEA, "method": (None, "cam")}),
        post(server, "explanations/lite0", files={"body": CHELSEA}, data={"method": "cam"}),
        post(server, "explanations/lite0", json={"data": encoded, "method": "cam"}),
    ]
    maps = [answer.json()["explanations"][0]["heatmap"]["data"] for answer in answers]
    assert len(set(maps)) == 1


def test_a_clients_own_explain_header_gets_a_prediction(server: Server) -> None:
    plain = post(server, "predictions/lite0", data=CHELSEA).json()
    for headers in ({"Explain": "True"}, {"explain": "True"}, {"EXPLAIN": "true", "Accept": "image/png"}):
        assert post(server, "predictions/lite0", data=CHELSEA, headers=headers).json() == plain
    form = {"data": ("cat.png", CHELSEA), "explain": (None, "True")}
    assert post(server, "predictions/lite0", files=form).json() == plain


HOSTILE: list[tuple[dict[str, Any], set[int]]] = [
    ({"data": b"GIF89a" + bytes(50)}, {415}),
    ({"data": CHELSEA[: len(CHELSEA) // 2]}, {415}),
    ({"data": b""}, {400}),
    ({"data": CHELSEA, "headers": {"X-Explain-Samples": "0"}}, {400}),
    ({"data": CHELSEA, "headers": {"X-Explain-Samples": "1000000000", "X-Explain-Method": "smoothgrad"}}, {413}),
    ({"data": CHELSEA, "headers": {"X-Explain-Target": "1000"}}, {400}),
    ({"data": CHELSEA, "headers": {"X-Explain-Target": "[METRICS]forged.Count:1|#a:b"}}, {400}),
    ({"data": CHELSEA, "headers": {"X-Explain-Wrong": "1"}}, {400}),
    ({"data": CHELSEA, "headers": {"Accept": "text/html"}}, {406}),
    ({"json": {"data": "!!!"}}, {400}),
    ({"json": {"data": {"a": []}}}, {400}),
    ({"json": [1, 2, 3]}, {400}),
    ({"json": {"image": "x"}}, {400}),
    ({"files": {"data": ("[METRICS]forged.Count:1|#a:b\n", b"text")}}, {415}),
    ({"files": {"data": CHELSEA, "method": (None, "smoothgrad"), "samples": (None, "-3")}}, {400}),
    ({"files": {"data": CHELSEA, "target": (None, "top10"), "overlay": (None, "true")}}, {200, 413}),
]  # fmt: skip


def test_bad_input_is_answered_for_itself_and_hurts_nobody(server: Server) -> None:
    workers = server.worker_pids("batch"), server.worker_pids("lite0")
    good = post(server, "predictions/lite0", data=CHELSEA).json()
    for request, codes in HOSTILE:
        answer = post(server, "explanations/lite0", **request)
        assert answer.status_code in codes, (request.keys(), answer.status_code, answer.text[:200])
        if answer.status_code != 200:
            assert answer.json().keys() == {"code", "type", "message"}
        assert post(server, "predictions/lite0", data=CHELSEA).json() == good
    assert (server.worker_pids("batch"), server.worker_pids("lite0")) == workers
    # A line of the server's log that a client could have written would be taken for a metric.
    assert not re.search(r"^.*\[METRICS\]forged", server.log(), re.MULTILINE)
    assert metric(server, "forged") == 0


def test_an_answer_stays_below_the_limit_that_would_kill_the_worker(server: Server) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    pids = server.worker_pids("batch")
    answer = post(server, "explanations/batch", data=stream.getvalue(), headers={"X-Explain-Overlay": "true"})
    assert answer.status_code == 200 and len(answer.content) <= 400_000
    assert answer.json()["explanations"][0]["overlay"]["width"] < 1024
    headers = {"X-Explain-Overlay": "true", "X-Explain-Target": "top10"}
    large = post(server, "explanations/batch", data=stream.getvalue(), headers=headers)
    assert large.status_code in (200, 413) and len(large.content) <= 400_000
    assert server.worker_pids("batch") == pids


def test_work_beyond_the_archives_bound_is_a_503_with_retry_after(server: Server) -> None:
    headers = {"X-Explain-Method": "smoothgrad", "X-Explain-Samples": "40"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(server, "explanations/batch", data=CHELSEA, headers=headers), range(4)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 200 and codes[-1] == 503
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["Retry-After"]) >= 1 and refused.json()["type"] == "ServiceUnavailable"


def test_prometheus_sees_explanations_by_method_and_status_and_their_stages(server: Server) -> None:
    post(server, "explanations/lite0", data=CHELSEA, headers={"X-Explain-Method": "gradient"})
    eventually(server, "heatserve_explanations_total", 1, Method="gradient", Output="json", Status="200")
    for stage in ("decode", "forward", "explain", "render"):
        eventually(server, "heatserve_stage_seconds_count", 1, Stage=stage, Method="gradient", ModelName="lite0")


def test_a_worker_that_is_killed_comes_back(server: Server) -> None:
    (pid,) = server.worker_pids("lite0")
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        answer = post(server, "explanations/lite0", data=CHELSEA)
        if answer.status_code == 200:
            break
        time.sleep(0.5)
    assert answer.status_code == 200
    assert server.worker_pids("lite0") != [pid]
