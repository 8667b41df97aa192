"""Continuous batching in process: the handler behind TorchServe's own `Service.predict`, whose inside it leans on."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.service import Service

from explain_handler import ExplainHandler
from heatserve.engine import Explainer, Query
from heatserve.serving import admission
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.service import Row
from heatserve.serving.settings import Settings
from heatserve.serving.states import UnderWay
from heatserve.torchserve import lock, modes
from heatserve_tools.packaging.trial_worker import parse
from heatserve_tools.torchserve.shipped import METRICS
from tests.serving.small import CONFIG, Small, picture, small_service, unpacked

CONTINUOUS = {"continuousBatching": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 64}


class Frontend:
    """What TorchServe's frontend does with one worker: rows without an answer, or with a part only, come again."""

    def __init__(self, folder: Path, config: dict[str, Any] | None = None) -> None:
        manifest = unpacked(folder)
        (folder / "config.yaml").write_text(json.dumps({**CONFIG, **CONTINUOUS, **(config or {})}))
        manifest["model"]["configFile"] = "config.yaml"
        metrics = MetricsCacheYamlImpl(str(METRICS))
        metrics.initialize_cache()
        metrics.model_name = "small"
        self.handler = ExplainHandler()
        self.service = Service("small", str(folder), manifest, self.handler.handle, None, 64, True, metrics)
        self.handler.initialize(self.service.context)
        self.service.set_cl_socket(None)
        self.rows: dict[str, dict[str, Any]] = {}
        self.parts: dict[str, list[bytes]] = {}

    def send(self, name: str, image: bytes, what: str = "explanations", http: bool = True, **options: Any) -> None:
        headers = {f"X-Explain-{key.replace('_', '-')}": str(value) for key, value in options.items()}
        if http:
            headers |= {"Content-Length": str(len(image)), "explain": str(what == "explanations"), "url_path": ""}
        self.rows[name] = {
            "requestId": name.encode(),
            "headers": [{"name": key.encode(), "value": value.encode()} for key, value in headers.items()],
            "parameters": [{"name": "body", "contentType": "image/png", "value": bytearray(image)}],
        }

    def send_json(self, name: str, body: Any, what: str = "explanations") -> None:
        """As TorchServe hands on a JSON body: parsed."""
        self.send(name, b"", what)
        self.rows[name]["parameters"][0]["value"] = body

    def step(self) -> dict[str, dict[str, Any]]:
        code, message, answers = parse(bytes(self.service.predict([dict(row) for row in self.rows.values()])))
        assert code == 200, message
        finished = {}
        for name, answer in answers.items():
            answer["body"] = base64.b64decode(answer["body"])
            if answer["headers"].get("ts_stream_next") == "true":
                # From the second time on the frontend sends no body.
                self.parts.setdefault(name, []).append(answer["body"])
                self.rows[name]["parameters"] = []
            else:
                del self.rows[name]
                finished[name] = answer
        return finished

    def until_done(self, limit: int = 500) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        while self.rows:
            found |= self.step()
            limit -= 1
            assert limit, f"left: {list(self.rows)}"
        return found


@pytest.fixture
def frontend(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Frontend]:
    # A clock of the test's own counts the work of one thread.
    alone = "clock" in request.fixturenames
    yield Frontend(tmp_path, {"explain": {"picture_threads": 0}} if alone else None)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many handlers live in this process, each of them the only worker of a server."""
    monkeypatch.setattr(modes, "only_worker", lambda name, version: None)


def test_predictions_are_answered_while_an_explanation_is_under_way(frontend: Frontend) -> None:
    frontend.send("smooth", picture(), method="smoothgrad", samples=200)
    frontend.step()
    for index in range(5):
        frontend.send(f"p{index}", picture(seed=index), "predictions")
        # What explanations are owed for a pass takes a step or a few, with a network this small.
        answers = next(found for found in iter(frontend.step, None) if found)
        assert list(answers) == [f"p{index}"]
    assert "smooth" in frontend.until_done()


def test_both_modes_give_the_same_answers(frontend: Frontend, tmp_path_factory: pytest.TempPathFactory) -> None:
    asked = {
        "gradcam": {"method": "gradcam", "output": "npy"},
        "cam": {"method": "cam", "output": "npy", "target": 2},
        "gradient": {"method": "gradient", "output": "npy", "target": "top3"},
        "smoothgrad": {"method": "smoothgrad", "samples": 9, "output": "npy"},
        "vargrad": {"method": "vargrad", "samples": 7, "output": "npy", "seed": 3},
        "soft": {"method": "gradcam", "samples": 5, "output": "npy", "target": "top2"},
        "wrong": {"method": "lime"},
        "png": {"method": "cam", "output": "png"},
    }
    ordinary = small_service(tmp_path_factory.mktemp("ordinary"))
    for name, options in asked.items():
        frontend.send(name, picture(), **options)
    frontend.send("broken", b"not an image")
    together = frontend.until_done()
    for name, options in asked.items():
        headers = {
            "Content-Length": "1",
            "explain": "True",
            **{f"X-Explain-{key}": str(value) for key, value in options.items()},
        }
        row = Row(name, {"body": picture()}, headers)
        reply = ordinary.call([row])
        while reply.left:
            reply = ordinary.call([row])
        answer = reply.answers[name]
        assert together[name]["status"] == answer.status
        if options.get("output") == "npy":
            ours, theirs = (np.load(io.BytesIO(body)) for body in (together[name]["body"], answer.body))
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
        else:
            assert together[name]["body"] == answer.body
    assert together["broken"]["status"] == 415


def test_a_smoothgrad_done_in_steps_is_the_one_of_the_library(frontend: Frontend) -> None:
    model = Small().eval()
    frontend.send("other", picture(seed=5), method="smoothgrad", samples=6)
    frontend.send("one", picture(32, 32), method="smoothgrad", samples=8, seed=11, target=2, output="npy")
    found = np.load(io.BytesIO(frontend.until_done()["one"]["body"]))
    service = frontend.handler.service
    from heatserve.imaging import decode

    image, _ = service.settings.preprocess.tensor(decode(picture(32, 32), 10**6), 10**6)
    query = Query("smoothgrad", target=2, samples=8, seed=11)
    (expected,) = Explainer(model, torch.rand(1, 3, 32, 32)).explain(image[None], query)
    assert np.abs(found - expected.map.numpy()).max() <= 1e-5 * float(expected.map.max())


def test_a_stream_gets_better_line_by_line_and_its_last_line_is_complete(frontend: Frontend) -> None:
    frontend.send("live", picture(), method="smoothgrad", samples=40, stream="true")
    last = frontend.until_done()["live"]
    lines = [json.loads(body) for body in [*frontend.parts["live"], last["body"]]]
    used = [line["explanations"][0]["quality"]["samples_used"] for line in lines]
    assert used == sorted(set(used)) and len(used) == 4 and used[-1] == 40
    assert [line["explanations"][0]["quality"]["converged"] for line in lines] == [False] * 3 + [None]
    assert last["headers"]["ts_stream_next"] == "false" and last["content_type"] == "application/x-ndjson"
    assert all(body.count(b"\n") == 1 and body.endswith(b"\n") for body in [*frontend.parts["live"], last["body"]])


def test_a_stream_of_what_is_done_at_once_is_one_whole_answer(frontend: Frontend) -> None:
    frontend.send("live", picture(), method="cam", stream="true")
    answer = frontend.step()["live"]
    assert "ts_stream_next" not in answer["headers"] and answer["content_type"] == "application/x-ndjson"
    assert json.loads(answer["body"])["explanations"]


def test_who_hangs_up_frees_the_work(frontend: Frontend) -> None:
    frontend.send("gone", picture(), method="smoothgrad", samples=100)
    frontend.step()
    frontend.step()
    assert frontend.handler.service.loop.under_way == 1
    del frontend.rows["gone"]
    frontend.send("p", picture(), "predictions")
    frontend.step()
    assert not frontend.handler.service.loop.rows


def test_a_deadline_gives_the_best_so_far_with_its_error(frontend: Frontend) -> None:
    frontend.send("late", picture(), method="smoothgrad", samples=200, deadline_ms=1)
    entry = json.loads(frontend.until_done()["late"]["body"])["explanations"][0]
    assert 2 <= entry["quality"]["samples_used"] < 200 and entry["parameters"]["samples"] == 200
    assert entry["quality"]["converged"] is False and entry["quality"]["standard_error"] > 0


def test_too_many_explanations_are_refused_at_once_and_predictions_and_gradcams_are_not(tmp_path: Path) -> None:
    frontend = Frontend(tmp_path, {"explain": {"max_explanations": 2}})
    for name in "abc":
        frontend.send(name, picture(), method="smoothgrad")
    frontend.send("p", picture(), "predictions")
    frontend.send("g", picture())
    first = frontend.step()
    assert {name: answer["status"] for name, answer in first.items()} == {"c": 503, "p": 200, "g": 200}
    assert int(first["c"]["headers"]["Retry-After"]) >= 1
    assert json.loads(first["c"]["body"])["type"] == "ServiceUnavailable"


def test_large_pictures_may_not_wait_in_numbers(tmp_path: Path) -> None:
    frontend = Frontend(tmp_path, {"explain": {"max_waiting_bytes": len(picture()) * 3 // 2}})
    for name in "ab":
        frontend.send(name, picture(), method="smoothgrad")
    assert {name: answer["status"] for name, answer in frontend.step().items()} == {"b": 503}


def test_a_fault_in_a_shared_chunk_stays_with_its_row(frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Explainer.steps

    def failing(self: Explainer, images: torch.Tensor, queries: Any, *precision: str) -> Any:
        if any(query.target == 5 and query.smoothed for row in queries for query in row):
            raise RuntimeError("of one row")
        return steps(self, images, queries, *precision)

    monkeypatch.setattr(Explainer, "steps", failing)
    monkeypatch.setattr(type(frontend.handler.service.loop._policy), "size", lambda self, largest: 8)
    frontend.send("bad", picture(), method="smoothgrad", samples=3, target=5)
    frontend.send("good", picture(), method="smoothgrad", samples=3, target=1)
    found = frontend.until_done()
    assert {name: answer["status"] for name, answer in found.items()} == {"bad": 500, "good": 200}


def test_a_call_that_fails_altogether_answers_every_row_and_ends_streams(
    frontend: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend.send("live", picture(), method="smoothgrad", samples=40, stream="true")
    while "live" not in frontend.parts:
        frontend.step()
    frontend.send("p", picture(), "predictions")
    monkeypatch.setattr(type(frontend.handler.service.loop), "step", lambda self: 1 / 0)
    answers = frontend.step()
    assert {name: answer["status"] for name, answer in answers.items()} == {"live": 500, "p": 500}
    assert answers["live"]["headers"]["ts_stream_next"] == "false"
    assert not frontend.handler.service.loop.rows


def test_a_row_without_http_headers_says_that_its_answer_is_the_last(frontend: Frontend) -> None:
    frontend.send("grpc", picture(), http=False)
    frontend.send("rest", picture(), "predictions")
    answers = frontend.step()
    assert answers["grpc"]["headers"]["ts_stream_next"] == "false"
    assert "ts_stream_next" not in answers["rest"]["headers"]


def test_describe_needs_no_image(frontend: Frontend) -> None:
    frontend.send("d", b"")
    frontend.rows["d"]["headers"] = [
        {"name": key, "value": value}
        for key, value in ((b"explain", b"True"), (b"url_path", b"describe"), (b"Content-Length", b"0"))
    ]
    answer = frontend.step()["d"]
    content = json.loads(answer["body"])
    assert answer["status"] == 200 and content["continuous_batching"] is True
    assert "smoothgrad" in content["methods"] and content["limits"]["max_samples"] == 200
    assert content["options"]["method"]["default"] == "gradcam" and content["versions"]["torch"] == torch.__version__


def test_an_envelope_is_refused_in_one_sentence() -> None:
    with pytest.raises(ArchiveError, match="envelope"):
        modes.check_mode(Settings(continuous=True), "m", {}, "kserve")
    with pytest.raises(ArchiveError, match="envelope"):
        modes.check_mode(Settings(), "m", {}, "kserve")
    modes.check_mode(Settings(), "m", {}, None)


def test_torchserves_loader_calls_initialize_where_its_envelope_is_to_be_seen() -> None:
    import inspect

    from ts.model_loader import TsModelLoader

    source = inspect.getsource(TsModelLoader.load)
    assert "envelope" in inspect.signature(TsModelLoader.load).parameters and "initialize_fn(service.context)" in source


def test_a_second_worker_is_refused_while_the_first_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = lock.only_worker("m", "1.0", patience=0)
    lock.only_worker("m", "2.0", patience=0)
    with pytest.raises(ArchiveError, match="one worker"):
        lock.only_worker("m", "1.0", patience=0.2)
    os.close(first)
    lock.only_worker("m", "1.0", patience=0)


def test_the_answer_is_built_from_the_rows_that_were_left(frontend: Frontend) -> None:
    """The contract: `Service.predict` compares and encodes the very objects that the handler shrank."""
    frontend.send("stays", picture(), method="smoothgrad", samples=30)
    frontend.send("goes", picture(), "predictions")
    frontend.send("refused", b"nothing")
    message = bytes(frontend.service.predict([dict(row) for row in frontend.rows.values()]))
    code, _, answers = parse(message)
    assert code == 200 and set(answers) == {"goes", "refused"}
    assert answers["refused"]["status"] == 415 and answers["goes"]["status"] == 200
    assert struct.unpack("!i", message[:4]) == (200,)


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(frontend: Frontend) -> Clock:
    given = Clock()
    frontend.handler.service.loop._policy.clock = given
    return given


def test_a_slow_pass_keeps_none_of_its_answers_back(
    frontend: Frontend, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Explainer.steps

    def slow(self: Explainer, images: torch.Tensor, queries: Any, *precision: str) -> Any:
        clock.now += 60
        return steps(self, images, queries, *precision)

    monkeypatch.setattr(Explainer, "steps", slow)
    for index in range(8):
        frontend.send(f"p{index}", picture(seed=index), "predictions")
    assert len(frontend.step()) == 8


def test_pictures_that_take_long_to_decode_let_newcomers_in_between(
    frontend: Frontend, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = admission.Admission.decode

    def slow(*given: Any) -> None:
        clock.now += 8
        decode(*given)

    monkeypatch.setattr(admission.Admission, "decode", slow)
    for index in range(3):
        frontend.send(f"p{index}", picture(seed=index), "predictions")
    assert [[*frontend.step()] for _ in range(3)] == [["p0"], ["p1"], ["p2"]]


def test_answers_that_take_long_to_draw_let_newcomers_in_between(
    frontend: Frontend, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    responder = type(frontend.handler.service.responder)
    respond = responder.respond

    def slow(*given: Any) -> Any:
        clock.now += 8
        return respond(*given)

    monkeypatch.setattr(responder, "respond", slow)
    for index in range(3):
        frontend.send(f"e{index}", picture(seed=index))
    assert [[*frontend.step()] for _ in range(3)] == [["e0"], ["e1"], ["e2"]]


def test_what_a_deadline_has_ended_stays_answered_when_its_chunk_fails(
    frontend: Frontend, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = frontend.handler.service.loop
    monkeypatch.setattr(type(loop._policy), "size", lambda self, largest: 8)
    for name, options in {"a": {"samples": 12, "deadline_ms": 1000}, "b": {"samples": 40}}.items():
        frontend.send(name, picture(), method="smoothgrad", **options)
    chunks = loop._chunks
    while not (loop.rows and chunks.chunk and len(chunks.chunk.items) == 2 and _samples(loop, "a") >= 2):
        assert not frontend.step()
    a = loop.rows["a"].items[0]
    a.state = a.state.concluded()

    def fails() -> Any:
        raise RuntimeError("in the second half of a chunk")
        yield

    chunks.chunk.steps = fails()
    answers = frontend.until_done()
    assert {name: answer["status"] for name, answer in answers.items()} == {"a": 200, "b": 200}


def _samples(loop: Any, name: str) -> int:
    state = loop.rows[name].items[0].state
    return state.jobs[0].smoothing.samples if isinstance(state, UnderWay) else 0


PROMISED = {60: 1.0, 61: 390.0, 62: 20.0}


@pytest.fixture
def decoded(frontend: Frontend, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths of the pictures in the order in which they are decoded; each takes as long as its header promises,
    which is told by the width."""
    opened, decode, order = admission.opened, admission.decode, []

    def promised(data: bytes, max_pixels: int) -> Any:
        file = opened(data, max_pixels)
        return replace(file, header=replace(file.header, decode_ms=PROMISED[file.header.width]))

    def slow(data: bytes, *given: Any) -> Any:
        found = decode(data, *given)
        clock.now += PROMISED[found.width] / 1000
        order.append(found.width)
        return found

    monkeypatch.setattr(admission, "opened", promised)
    monkeypatch.setattr(admission, "decode", slow)
    return order


def test_a_picture_that_is_decoded_fast_goes_before_those_that_are_not(frontend: Frontend, decoded: list[int]) -> None:
    for index in range(4):
        frontend.send(f"large{index}", picture(61, seed=index), "predictions")
    frontend.send("small", picture(60), "predictions")
    assert [*frontend.step()] == ["small"] and decoded == [60]
    frontend.send("next", picture(60, seed=1), "predictions")
    assert [*frontend.step()] == ["next"]


def test_of_the_pictures_that_hold_others_up_a_call_decodes_one(frontend: Frontend, decoded: list[int]) -> None:
    for index in range(3):
        frontend.send(f"large{index}", picture(61, seed=index), "predictions")
    calls = []
    while frontend.rows:
        before = len(decoded)
        frontend.step()
        calls.append(len(decoded) - before)
    assert max(calls) == 1 and sum(calls) == 3


def test_pictures_that_hold_others_up_have_their_turn_beside_predictions_without_end(
    frontend: Frontend, decoded: list[int]
) -> None:
    frontend.send("large", picture(61), "predictions")
    for index in range(100):
        frontend.send(f"p{index}", picture(60, seed=index), "predictions")
        if "large" in frontend.step():
            break
    else:
        pytest.fail("never decoded")


def test_a_call_stops_decoding_within_a_row_of_many_pictures(frontend: Frontend, decoded: list[int]) -> None:
    images = [base64.b64encode(picture(62, seed=index)).decode() for index in range(6)]
    frontend.send_json("many", {"instances": images}, "predictions")
    frontend.step()
    first = len(decoded)
    frontend.send("one", picture(60), "predictions")
    found = frontend.step()
    assert "one" in found and decoded[first] == 60 and 0 < first < 6
    answer = (found | frontend.until_done())["many"]
    assert len(json.loads(answer["body"])["predictions"]) == 6 and decoded.count(62) == 6


def test_a_picture_that_was_passed_over_is_decoded_at_last(frontend: Frontend, decoded: list[int]) -> None:
    frontend.send("patient", picture(62), "predictions")
    for index in range(200):
        for number in range(60):
            frontend.send(f"p{index}-{number}", picture(60, seed=number), "predictions")
        if "patient" in frontend.step():
            break
        frontend.rows = {"patient": frontend.rows["patient"]}  # the others do not wait
    else:
        pytest.fail("never decoded")
    assert index


@pytest.mark.parametrize(("method", "most"), [("smoothgrad", 8), ("gradient", 32)])
def test_what_one_request_can_never_be_given_is_no_503(frontend: Frontend, method: str, most: int) -> None:
    images = [base64.b64encode(picture(seed=index)).decode() for index in range(64)]
    frontend.send_json("many", {"instances": images, "method": method, "samples": 50 if method == "smoothgrad" else 1})
    found = json.loads(frontend.until_done(20_000)["many"]["body"])["explanations"]
    codes = [entry.get("code", 200) for entry in found]
    assert codes == [200] * most + [413] * (64 - most)
    assert all("fewer" in entry["message"] or "at most" in entry["message"] for entry in found[most:])


def test_beside_others_the_same_request_is_told_to_come_again(frontend: Frontend) -> None:
    frontend.send("first", picture(), method="smoothgrad", samples=200)
    frontend.step()
    images = [base64.b64encode(picture(seed=index)).decode() for index in range(6)]
    frontend.send_json("many", {"instances": images, "method": "smoothgrad"})
    found = json.loads(frontend.until_done(5_000)["many"]["body"])["explanations"]
    assert [entry.get("code", 200) for entry in found] == [200] * 4 + [503] * 2


def test_pictures_beyond_what_may_wait_to_be_decoded_are_told_to_come_again(
    frontend: Frontend, decoded: list[int]
) -> None:
    for index in range(14):
        frontend.send(f"large{index}", picture(61, seed=index), "predictions")
    first = frontend.step()
    refused = [name for name, answer in first.items() if answer["status"] == 503]
    assert refused == ["large12", "large13"] and int(first["large12"]["headers"]["Retry-After"]) == 5
    assert all(answer["status"] == 200 for answer in frontend.until_done().values())


def test_a_request_that_promises_too_much_decoding_is_a_413(frontend: Frontend, decoded: list[int]) -> None:
    images = [base64.b64encode(picture(61, seed=index)).decode() for index in range(5)]
    frontend.send_json("many", {"instances": images}, "predictions")
    answer = frontend.until_done()["many"]
    found = json.loads(answer["body"])["predictions"]
    assert [entry.get("code", 200) for entry in found] == [200] * 3 + [413] * 2 and decoded == [61] * 3


def test_what_would_be_resized_beyond_its_limit_is_refused_before_it_is_decoded(
    frontend: Frontend, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROMISED, 30_000, 1.0)
    stream = io.BytesIO()
    Image.new("RGB", (30_000, 1)).save(stream, "PNG")
    frontend.send("wide", stream.getvalue(), "predictions")
    assert frontend.step()["wide"]["status"] == 413 and not decoded


def test_a_picture_has_its_turn_beside_tensors_without_end(frontend: Frontend, decoded: list[int]) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [0.5] * (3 * 32 * 32)}
    frontend.send("patient", picture(62), "predictions")
    loop, policy = frontend.handler.service.loop, frontend.handler.service.loop._policy
    admit = type(loop).admit

    def slow(*given: Any) -> Any:
        policy.clock.now += 0.06  # beyond its patience: one newcomer a call, and one picture decoded
        return admit(*given)

    for index in range(100):
        frontend.send_json(f"t{index}", {"inputs": [tensor]}, "predictions")
        type(loop).admit = slow
        try:
            found = frontend.step()
        finally:
            type(loop).admit = admit
        if "patient" in found:
            break
    else:
        pytest.fail("never decoded")


def test_bytes_that_wait_to_be_decoded_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = picture(61)
    frontend = Frontend(tmp_path, {"explain": {"max_waiting_bytes": len(large) * 4 // 5}})
    opened = admission.opened

    def slow(*given: Any) -> Any:
        file = opened(*given)
        return replace(file, header=replace(file.header, decode_ms=200.0))

    monkeypatch.setattr(admission, "opened", slow)
    for index in range(5):
        frontend.send(f"large{index}", large, "predictions")
    found = frontend.step()
    assert [name for name, answer in found.items() if answer["status"] == 503] == ["large3", "large4"]
    assert all(answer["status"] == 200 for answer in frontend.until_done().values())
