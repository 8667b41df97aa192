"""The handler in process, with TorchServe's own context, requests and metrics: mixed batches, faults, limits."""

from __future__ import annotations

import base64
import io
import json
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Saliency
from PIL import Image
from torchvision import transforms
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from explain_handler import ExplainHandler
from heatserve.engine import Explainer
from heatserve.engine.network import Network
from heatserve.engine.statistic import Statistic
from heatserve.serving.service import Row
from heatserve_tools.torchserve.shipped import METRICS
from tests.serving.small import CONFIG, LABELS, Small, picture, unpacked

VIEW = transforms.Compose(
    [
        transforms.Resize(36),
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)
PREDICT: dict[str, Any] = {"content-length": "1", "explain": "False", "url_path": ""}
EXPLAIN: dict[str, Any] = {"content-length": "1", "explain": "True", "url_path": ""}


def handler(tmp_path: Path, config: dict[str, Any] | None = None) -> tuple[ExplainHandler, Context]:
    metrics = MetricsCacheYamlImpl(str(METRICS))
    metrics.initialize_cache()
    metrics.model_name = "small"
    context = Context(
        "small",
        str(tmp_path),
        unpacked(tmp_path),
        8,
        None,
        "0.12.0",
        metrics=metrics,
        model_yaml_config={**CONFIG, **(config or {})},
    )
    made = ExplainHandler()
    made.initialize(context)
    return made, context


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExplainHandler, Context]:
    return handler(tmp_path_factory.mktemp("archive"))


def ask(
    small: tuple[ExplainHandler, Context], *rows: tuple[Any, dict[str, Any]]
) -> list[tuple[int, Any, dict[str, str]]]:
    """Sends one batch; (status, body, headers) of each row. JSON bodies are parsed."""
    made, context = small
    context.request_ids = {index: f"id{index}" for index in range(len(rows))}
    context.request_processor = [RequestProcessor(dict(headers)) for _, headers in rows]
    context.metrics.request_ids = context.request_ids
    bodies = made.handle([row for row, _ in rows], context)
    assert len(bodies) == len(rows) and not made.service.loop.rows
    answers = []
    for index, body in enumerate(bodies):
        headers = context.get_response_headers(index)
        if isinstance(body, bytes) and headers.get("content-type") == "application/json":
            body = json.loads(body)
        answers.append((context.get_response_status(index)[0], body, headers))
    return answers


def view(image: bytes) -> torch.Tensor:
    return VIEW(Image.open(io.BytesIO(image)).convert("RGB"))[None]


def body(image: bytes, **fields: Any) -> dict[str, Any]:
    return {"body": {"data": base64.b64encode(image).decode(), **fields}}


def test_a_mixed_batch_gives_each_row_its_own_answer(small: tuple[ExplainHandler, Context]) -> None:
    images = [picture(seed=seed) for seed in range(6)]
    answers = ask(
        small,
        ({"body": bytearray(images[0])}, PREDICT),
        ({"body": bytearray(images[1])}, EXPLAIN),
        ({"body": bytearray(b"not an image")}, EXPLAIN),
        (body(images[2], method="gradient", target=1, output="npy"), EXPLAIN),
        (body(images[3], method="gradcam", target=4, output="npy"), EXPLAIN),
        (body(images[4], method="smoothgrad", samples=3), EXPLAIN),
        ({"body": bytearray(images[5])}, PREDICT),
    )
    assert [status for status, _, _ in answers] == [200, 200, 415, 200, 200, 200, 200]
    model = Small().eval()
    with torch.no_grad():
        for index, image in ((0, images[0]), (6, images[5])):
            probabilities, classes = model(view(image)).softmax(1)[0].topk(5)
            expected = {LABELS[c]: p for c, p in zip(classes.tolist(), probabilities.tolist())}
            assert list(answers[index][1]) == list(expected)
            assert answers[index][1] == pytest.approx(expected, abs=1e-6)
        predicted = int(model(view(images[1])).argmax())
    explanation = answers[1][1]["explanations"][0]
    assert explanation["target"]["index"] == answers[1][1]["predictions"][0]["index"] == predicted
    saliency = Saliency(model).attribute(view(images[2]), target=1).abs().amax(1)[0]
    assert np.allclose(np.load(io.BytesIO(answers[3][1])), saliency.numpy(), atol=1e-5)
    frozen = Small().eval()
    gradcam = LayerGradCam(frozen, frozen.pool).attribute(
        view(images[3]), target=4, attribute_to_layer_input=True, relu_attributions=True
    )
    upsampled = torch.nn.functional.interpolate(gradcam, (32, 32), mode="bilinear")[0, 0].detach().numpy()
    assert np.allclose(np.load(io.BytesIO(answers[4][1])), upsampled, atol=1e-5 * upsampled.max())
    quality = answers[5][1]["explanations"][0]["quality"]
    assert quality["samples_used"] == 3 and quality["standard_error"] > 0


def test_the_json_answer_has_the_shape_of_the_contract(small: tuple[ExplainHandler, Context]) -> None:
    image = picture(90, 40)
    _, answer, headers = ask(small, (body(image, overlay=True, boxes=True, top_k=2), EXPLAIN))[0]
    assert headers["content-type"] == "application/json"
    assert set(answer) == {"predictions", "explanations", "image", "model", "timing_ms"}
    assert len(answer["predictions"]) == 2
    assert answer["image"] == {"width": 90, "height": 40, "seen": [27, 2, 62, 38]}
    assert answer["model"] == {
        "name": "small",
        "version": "1.0",
        "weights_sha256": "w",
        "contents_sha256": "c",
        "activation": "softmax",
    }
    entry = answer["explanations"][0]
    assert entry["parameters"] == {
        "layer": "trunk", "layout": "nchw", "layout_proved": True, "samples": 1, "standard_error": None,
        "noise_level": None, "seed": None, "resolution": None, "contrast": None,
        "precision": "float32",
    }  # fmt: skip
    assert entry["quality"] == {"empty": False, "samples_used": 1, "standard_error": None, "converged": None}
    heatmap = Image.open(io.BytesIO(base64.b64decode(entry["heatmap"]["data"])))
    assert (heatmap.mode, heatmap.size) == ("L", (90, 40)) and heatmap.getextrema()[1] == 255
    assert Image.open(io.BytesIO(base64.b64decode(entry["overlay"]["data"]))).size == (90, 40)
    assert set(entry["boxes"][0]) == {"x0", "y0", "x1", "y1", "score"}


def test_several_targets_give_one_map_each_in_the_order_of_their_rank(
    small: tuple[ExplainHandler, Context],
) -> None:
    _, answer, _ = ask(small, (body(picture(), target="top3"), EXPLAIN))[0]
    ranked = [entry["index"] for entry in answer["predictions"][:3]]
    assert [entry["target"]["index"] for entry in answer["explanations"]] == ranked


def test_png_and_npy_carry_the_prediction_in_printable_headers(small: tuple[ExplainHandler, Context]) -> None:
    for output, kind in (("png", "image/png"), ("npy", "application/x-npy")):
        for target in range(6):
            _, content, headers = ask(small, (body(picture(), output=output, target=target), EXPLAIN))[0]
            assert headers["content-type"] == kind and isinstance(content, bytes)
            assert headers["X-Explanation-Target-Index"] == str(target)
            assert all(value.isascii() and value.isprintable() for value in headers.values())


def test_a_map_does_not_depend_on_its_batch_mates(small: tuple[ExplainHandler, Context]) -> None:
    rows = [(body(picture(seed=s), method=m, samples=n, output="npy"), EXPLAIN)
            for s, m, n in ((0, "gradcam", 1), (1, "smoothgrad", 7), (2, "cam", 1), (3, "gradcam", 5))]  # fmt: skip
    together = [np.load(io.BytesIO(answer[1])) for answer in ask(small, *rows)]
    for row, mate in zip(rows, together):
        alone = np.load(io.BytesIO(ask(small, row)[0][1]))
        assert np.abs(alone - mate).max() <= 1e-5 * np.abs(alone).max()


def test_requests_alike_to_the_byte_do_not_get_in_each_others_way(
    small: tuple[ExplainHandler, Context],
) -> None:
    gradient = (body(picture(), method="gradient"), EXPLAIN)
    smooth = (body(picture(), method="smoothgrad", samples=4, target="top2"), EXPLAIN)
    plain = ({"body": picture()}, PREDICT)
    answers = ask(small, gradient, gradient, smooth, smooth, plain, plain)
    assert [status for status, _, _ in answers] == [200] * 6
    maps = [answer["explanations"][-1]["heatmap"]["data"] for _, answer, _ in answers[:4]]
    assert maps[0] == maps[1] and maps[2] == maps[3]


def test_a_fault_of_an_unknown_kind_is_one_rows_500(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = Explainer.steps

    def failing(self: Explainer, images: torch.Tensor, queries: Any, *precision: str) -> Any:
        if any(query.target == 5 for row in queries for query in row):
            raise RuntimeError("secret [METRICS] text of a client")
        return forward(self, images, queries, *precision)

    monkeypatch.setattr(Explainer, "steps", failing)
    with caplog.at_level(logging.ERROR):
        answers = ask(small, ({"body": picture()}, PREDICT), (body(picture(), target=5), EXPLAIN))
    assert [status for status, _, _ in answers] == [200, 500]
    assert answers[1][1]["type"] == "InternalServerError" and "secret" not in str(answers[1])
    assert "RuntimeError at" in caplog.text and "secret" not in caplog.text


def test_an_out_of_memory_that_no_halving_cures_is_a_507_of_its_row(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Network.passes

    def starved(self: Network, images: torch.Tensor, queries: Any, *head: Any, **named: Any) -> Any:
        if any(query.through_input for row in queries for query in row):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, images, queries, *head, **named)

    monkeypatch.setattr(Network, "passes", starved)
    answers = ask(
        small,
        ({"body": picture()}, PREDICT),
        (body(picture(), method="smoothgrad"), EXPLAIN),
        (body(picture()), EXPLAIN),
    )
    assert [status for status, _, _ in answers] == [200, 507, 200]


def test_work_beyond_the_bound_is_refused_at_once_and_predictions_never_are(tmp_path: Path) -> None:
    limited = handler(tmp_path, {"explain": {"max_samples": 10, "max_batch_work": 40}})
    row = (body(picture(), method="smoothgrad", samples=10), EXPLAIN)
    answers = ask(limited, row, row, row, ({"body": picture()}, PREDICT))
    assert [status for status, _, _ in answers] == [200, 503, 503, 200]
    assert int(answers[1][2]["Retry-After"]) >= 1


def test_a_large_answer_is_sent_as_a_smaller_picture_and_413_where_that_cannot_help(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    limited = handler(tmp_path, {"explain": {"max_response_bytes": 200_000}})
    answers = ask(
        limited,
        (body(stream.getvalue(), overlay=True), EXPLAIN),
        ({"body": stream.getvalue()}, {**EXPLAIN, "Accept": "image/png"}),
    )
    assert [status for status, _, _ in answers] == [200, 200]
    entry = answers[0][1]["explanations"][0]
    assert entry["overlay"]["width"] == entry["heatmap"]["width"]
    assert 100_000 < len(json.dumps(answers[0][1])) <= 200_000
    assert len(answers[1][1]) <= 200_000
    tiny = handler(tmp_path, {"explain": {"max_response_bytes": 2_000}})
    answers = ask(tiny, (body(stream.getvalue(), target="top6"), EXPLAIN), ({"body": picture()}, PREDICT))
    assert [status for status, _, _ in answers] == [413, 200]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with next to no data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"just text", 415),
        (picture()[:200], 415),
        (picture(form="JPEG")[:100], 415),
        (b"", 400),
        (png_of_size(65_535, 65_535), 413),
        (png_of_size(0, 10), 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%PDF-1.4", 415),
        (picture(1, 10_000), 413),
        (picture(1, 1_000), 200),
        (picture(1, 1), 200),
    ],
)
@pytest.mark.parametrize("headers", [PREDICT, EXPLAIN])
def test_a_bad_picture_is_its_own_rows_fault(
    small: tuple[ExplainHandler, Context], image: bytes, code: int, headers: dict[str, Any]
) -> None:
    answers = ask(small, ({"body": bytearray(image)}, headers), ({"body": picture()}, PREDICT))
    assert [status for status, _, _ in answers] == [code, 200]
    if code != 200:
        assert set(answers[0][1]) == {"code", "type", "message"} and answers[0][1]["code"] == code


def test_metrics_that_fail_cost_no_answer(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr(small[0].metrics, "_emit", broken)
    assert ask(small, ({"body": picture()}, PREDICT))[0][0] == 200
    assert "metrics failed: ValueError at" in caplog.text


def test_a_batch_that_fails_as_a_whole_still_answers_every_row(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr(small[0].service.loop, "step", broken)
    answers = ask(small, ({"body": picture()}, PREDICT), ({"body": b"text"}, EXPLAIN))
    assert [status for status, _, _ in answers] == [500, 500]
    monkeypatch.undo()
    assert ask(small, ({"body": picture()}, PREDICT))[0][0] == 200


def test_a_prediction_that_is_refused_is_not_counted_as_an_explanation(
    small: tuple[ExplainHandler, Context], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert ask(small, ({}, PREDICT))[0][0] == 400
    assert "heatserve_batch_rows_total" in caplog.text and "heatserve_explanations_total" not in caplog.text
    with caplog.at_level(logging.INFO):
        assert ask(small, ({}, EXPLAIN))[0][0] == 400
    assert "heatserve_explanations_total.Count:1|#Method:unknown,Output:unknown,Status:400" in caplog.text


def test_a_host_without_memory_is_a_507_wherever_it_shows(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr("heatserve.serving.admission.decode", starved)
    assert ask(small, ({"body": picture()}, PREDICT))[0][0] == 507


def test_nothing_of_a_request_reaches_the_log_or_a_metric_as_it_came(
    small: tuple[ExplainHandler, Context], caplog: pytest.LogCaptureFixture
) -> None:
    evil = "x\n[METRICS]forged.Count:1|#Level:Model|#hostname:h,1"
    with caplog.at_level(logging.DEBUG):
        ask(
            small,
            (body(picture(), **{evil: 1}), EXPLAIN),
            (body(picture(), method=evil), EXPLAIN),
            (body(picture(), target=5), {**EXPLAIN, "Accept": "image/png", "X-Explain-" + evil: evil}),
            ({"body": evil.encode()}, EXPLAIN),
            (body(picture(), target=5), EXPLAIN),
        )
    assert "forged" not in caplog.text and "heatserve_explanations_total" in caplog.text


def test_samples_end_by_the_standard_error_and_the_answer_says_so(tmp_path: Path) -> None:
    one = handler(tmp_path, {"explain": {"max_samples": 60, "chunk": 4}})
    answers = ask(one, *((body(picture(), method="smoothgrad", standard_error=e), EXPLAIN) for e in (10, 0.001)))
    ended, full = (answer["explanations"][0] for _, answer, _ in answers)
    assert (ended["parameters"]["samples"], ended["parameters"]["standard_error"]) == (60, 10)
    assert 10 <= ended["quality"]["samples_used"] < 20 and ended["quality"]["converged"] is True
    assert full["quality"]["samples_used"] == 60 and full["quality"]["converged"] is False


@pytest.mark.parametrize("method", ["gradcam", "gradient", "smoothgrad"])
def test_where_the_softmax_saturates_an_answer_lists_and_explains_the_classes_in_one_order(
    small: tuple[ExplainHandler, Context], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = torch.tensor([-500.0, 900.0, -800.0, 100.0, 300.0, -700.0])
    linear = small[0].service.explainer.model.linear
    assert isinstance(linear, torch.nn.Linear)
    monkeypatch.setattr(linear.bias, "data", scores)
    asked = {"method": method, "samples": 2} if method == "smoothgrad" else {"method": method}
    _, answer, _ = ask(small, (body(picture(), target="top5", top_k=6, **asked), EXPLAIN))[0]
    listed = [entry["index"] for entry in answer["predictions"]]
    assert [entry["probability"] for entry in answer["predictions"]] == [1, 0, 0, 0, 0, 0]
    assert listed == scores.argsort(descending=True).tolist() == [1, 4, 3, 0, 5, 2]
    assert [entry["target"]["index"] for entry in answer["explanations"]] == listed[:5]


def test_a_map_that_is_no_larger_than_its_noise_has_no_standard_error_and_has_not_converged(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Statistic, "relative_error", lambda self: torch.tensor(float("inf")))
    _, answer, _ = ask(small, (body(picture(), method="smoothgrad", samples=12, standard_error=9), EXPLAIN))[0]
    quality = answer["explanations"][0]["quality"]
    assert (quality["standard_error"], quality["converged"], quality["samples_used"]) == (None, False, 12)


def test_the_precision_is_told_of_what_it_was_used_for(tmp_path: Path) -> None:
    one = handler(tmp_path, {"explain": {"precision": "bfloat16"}})
    answers = ask(one, (body(picture(), method="smoothgrad", samples=3), EXPLAIN), (body(picture()), EXPLAIN))
    assert [a["explanations"][0]["parameters"]["precision"] for _, a, _ in answers] == ["bfloat16", "float32"]


def test_an_archives_standard_error_is_no_obstacle_to_maps_without_samples(tmp_path: Path) -> None:
    one = handler(tmp_path, {"explain": {"method": "smoothgrad", "standard_error": 5, "max_samples": 30}})
    answers = ask(one, (body(picture()), EXPLAIN), (body(picture(), method="gradcam"), EXPLAIN))
    assert [a["explanations"][0]["parameters"]["standard_error"] for _, a, _ in answers] == [5, None]


def test_a_variance_without_noise_is_refused(small: tuple[ExplainHandler, Context]) -> None:
    ((status, answer, _),) = ask(small, (body(picture(), method="vargrad", noise_level=0), EXPLAIN))
    assert status == 400 and answer["message"].startswith("noise_level must be above 0 for vargrad")


def test_maps_of_one_request_are_bounded(small: tuple[ExplainHandler, Context]) -> None:
    image = base64.b64encode(picture()).decode()
    row = {"body": {"instances": [{"data": image}] * 40, "target": "top2"}}
    ((status, answer, _),) = ask(small, (row, EXPLAIN))
    codes = [entry.get("code", 200) for entry in answer["explanations"]]
    assert status == 200 and codes == [200] * 32 + [413] * 8


def test_no_pass_has_more_rows_than_it_should_and_a_small_request_does_not_wait_for_a_large_one(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, passes = Explainer.steps, []

    def counted(self: Explainer, images: torch.Tensor, queries: Any, *precision: str) -> Any:
        passes.append([len(images), any(service.loop.rows[name].done for name in ("many", "one"))])
        return steps(self, images, queries, *precision)

    monkeypatch.setattr(Explainer, "steps", counted)
    service = small[0].service
    image = base64.b64encode(picture()).decode()
    headers = {**PREDICT, "Content-Length": "1"}
    service.loop.admit(Row("many", {"body": {"instances": [image] * 64}}, headers))
    service.loop.admit(Row("one", {"body": picture()}, headers))
    service.loop.step()
    assert service.loop.done == ["one"] and passes == [[16, False]]
    while service.loop.busy:
        service.loop.step()
    assert [rows for rows, _ in passes] == [16, 16, 16, 16, 1]
    service.loop.begin([])


def test_torchserves_profiler_runs_around_a_batch(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[str] = []
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "1")
    monkeypatch.setattr(
        torch.profiler, "tensorboard_trace_handler", lambda folder: lambda _: traced.append(f"written to {folder}")
    )
    assert ask(small, ({"body": picture()}, PREDICT))[0][0] == 200
    assert traced == ["written to /tmp/pytorch_profiler/small"]


@pytest.mark.parametrize("fails", [lambda folder: 1 / 0, lambda folder: lambda _: 1 / 0], ids=["start", "stop"])
def test_a_profiler_that_fails_costs_no_answer(
    small: tuple[ExplainHandler, Context], monkeypatch: pytest.MonkeyPatch, fails: Any
) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "1")
    monkeypatch.setattr(torch.profiler, "tensorboard_trace_handler", fails)
    row = ({"body": picture()}, PREDICT)
    assert [status for status, _, _ in ask(small, row, row)] == [200, 200]
    monkeypatch.undo()
    assert ask(small, row)[0][0] == 200
