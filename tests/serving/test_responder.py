"""Outcomes become answers: rendering changes no outcome, protocols encode finished parts, and facts are given back."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from heatserve.engine import Attribution, Query
from heatserve.imaging import Photograph, plan
from heatserve.serving.answers import Answer, Part, TensorParts, ok
from heatserve.serving.errors import Refusal
from heatserve.serving.formats import FORMATS, Content, Format
from heatserve.serving.model_info import ModelInfo
from heatserve.serving.protocols import protocol_of
from heatserve.serving.requests import Request
from heatserve.serving.responder import Rendered, Responder
from heatserve.serving.settings import Limits
from heatserve.serving.states import Described, Finished, Refused
from tests.serving.small import small_service

MODEL = ModelInfo("small", "1.0", None, None)
HTTP = {"Content-Length": "1", "explain": "True"}
REST = protocol_of({"body": b"x"}, HTTP)
WIDTH, HEIGHT = 90, 40
#: The hot region of `finished`: left, top, right, bottom.
REGION = (70, 5, 85, 11)


def v1(count: int) -> Any:
    return protocol_of({"body": {"instances": ["x"] * count}}, HTTP)


def v2(count: int, headers: dict[str, Any] = HTTP, **members: Any) -> Any:
    sent = {"datatype": "BYTES", "shape": [count], "data": ["x"] * count}
    return protocol_of({"body": {"inputs": [sent], "explain": True, **members}}, headers)


@pytest.fixture(scope="module")
def responder(tmp_path_factory: pytest.TempPathFactory) -> Responder:
    return small_service(tmp_path_factory.mktemp("archive")).responder


def shown(image: Image.Image) -> Photograph:
    return Photograph(image.size, image)


def finished(maps: Sequence[float] = (1.0,), **asked: Any) -> Finished:
    """An item of a wide photograph that the model saw as a whole; each map is as hot in REGION as its number."""
    attributions = []
    for index, heat in enumerate(maps):
        values = torch.zeros(HEIGHT, WIDTH)
        values[REGION[1] : REGION[3], REGION[0] : REGION[2]] = heat
        attributions.append(Attribution(Query("gradcam", target=index), values))
    request = Request(b"x", queries=tuple(found.query for found in attributions), **asked)
    return Finished(
        request=request,
        size=(WIDTH, HEIGHT),
        geometry=plan(WIDTH, HEIGHT, None, None),
        photograph=shown(Image.new("RGB", (WIDTH, HEIGHT), (40, 80, 120))),
        probabilities=torch.tensor([0.5, 0.2, 0.1, 0.1, 0.06, 0.04]),
        scores=torch.tensor([3.0, 2.0, 1.0, 0.9, 0.5, 0.0]),
        attributions=tuple(attributions),
        seconds={"decode": 0.001, "forward": 0.002, "explain": 0.003, "render": 0.5},
    )


def document(rendered: Rendered) -> dict[str, Any]:
    assert isinstance(rendered.answer.body, bytes)
    found: dict[str, Any] = json.loads(rendered.answer.body)
    return found


def picture(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), int)


# Protocols, of parts that were made by hand


def test_one_part_is_the_whole_answer_of_rest() -> None:
    part = Answer(200, b"picture", "image/png", {"X-A": "1"})
    assert REST.encode([part], MODEL) is part
    refused = REST.encode([Refusal(503, "later", retry_after=7)], MODEL)
    assert (refused.status, refused.headers) == (503, {"Retry-After": "7"})
    assert json.loads(refused.body) == {"code": 503, "type": "ServiceUnavailable", "message": "later", "retry_after": 7}


def test_the_first_protocol_keeps_the_order_of_its_parts() -> None:
    parts: list[Part] = [Answer(200, {"cat": 0.5}), Refusal(413, "too large"), ok(b'{"b": 1, "a": 2}')]
    found = v1(3).encode(parts, MODEL)
    error = b'{"error": "too large", "code": 413, "type": "PayloadTooLarge", "message": "too large"}'
    assert found.body == b'{"explanations": [{"cat": 0.5}, ' + error + b', {"b": 1, "a": 2}]}' and found.status == 200


@pytest.mark.parametrize("protocol", [v1(2), v2(2)], ids=["v1", "v2"])
def test_an_envelope_of_refusals_has_the_first_ones_status(protocol: Any) -> None:
    found = protocol.encode([Refusal(503, "later", retry_after=3), Refusal(400, "wrong")], MODEL)
    assert (found.status, found.headers, found.reason) == (503, {"Retry-After": "3"}, "ServiceUnavailable")
    assert b"later" in found.body and b"wrong" in found.body


def test_tensors_of_several_items_are_stacked_in_the_order_of_the_parts() -> None:
    one, two, three = (np.full((2, 3), value, np.float32) for value in (1, 2, 3))
    parts = [TensorParts("a", [one]), Refusal(400, "wrong"), TensorParts("c", [two, three], overlays=["x", "y"])]
    found = json.loads(v2(3, id="i").encode(parts, ModelInfo("m", "2", None, None)).body)
    assert (found["model_name"], found["model_version"], found["id"]) == ("m", "2", "i")
    outputs = {each.pop("name"): each for each in found["outputs"]}
    assert [*outputs] == ["prediction", "heatmap", "heatmap_instance", "overlay"]
    assert outputs["heatmap"] == {"datatype": "FP32", "shape": [3, 2, 3], "data": [1] * 6 + [2] * 6 + [3] * 6}
    assert outputs["heatmap_instance"] == {"datatype": "INT32", "shape": [3], "data": [0, 2, 2]}
    assert outputs["overlay"]["data"] == ["x", "y"]
    assert [*outputs["prediction"]["data"]][::2] == ["a", "c"] and "wrong" in outputs["prediction"]["data"][1]


def test_maps_and_pictures_share_no_envelope() -> None:
    parts = [TensorParts("a", [np.zeros((1, 1), np.float32)]), TensorParts("b", pictures=["x"])]
    with pytest.raises(Refusal, match="one for all inputs"):
        v2(2).encode(parts, MODEL)


def test_a_refusal_over_grpc_is_an_answer_of_the_second_protocol() -> None:
    found = v2(1, {}).encode([Refusal(413, "too large")], MODEL)
    content = json.loads(found.body)
    assert (
        found.status == 200 and content["id"] == "" and [each["name"] for each in content["outputs"]] == ["prediction"]
    )
    assert json.loads(content["outputs"][0]["data"][0])["code"] == 413


# Outcomes


def test_a_map_is_where_the_model_looked_on_the_photograph(responder: Responder) -> None:
    outcome = finished(boxes=True, overlay=True)
    (entry,) = document(responder.respond(REST, [outcome]))["explanations"]
    left, top, right, bottom = REGION
    assert entry["boxes"] == [{"x0": left, "y0": top, "x1": right, "y1": bottom, "score": 1.0}]
    heat, overlay = picture(entry["heatmap"]["data"]), picture(entry["overlay"]["data"])
    assert heat.shape == (HEIGHT, WIDTH) and overlay.shape == (HEIGHT, WIDTH, 3)
    wanted = np.zeros((HEIGHT, WIDTH), int)
    wanted[top:bottom, left:right] = 255
    assert np.array_equal(heat, wanted)
    changed = (overlay != (40, 80, 120)).any(2)
    assert np.array_equal(changed, wanted > 0)


@pytest.mark.parametrize("protocol", [REST, v1(1), v2(1)], ids=["rest", "v1", "v2"])
def test_rendering_changes_no_outcome(responder: Responder, protocol: Any) -> None:
    outcome = finished((1.0, 0.0), overlay=True)
    assert outcome.photograph is not None and outcome.photograph.image is not None
    pixels = outcome.photograph.image
    before = (dict(outcome.seconds), pixels.tobytes(), [a.values.clone() for a in outcome.attributions])
    first, second = (responder.respond(protocol, [outcome]) for _ in range(2))
    assert (dict(outcome.seconds), pixels.tobytes()) == before[:2]
    assert all(torch.equal(now.values, then) for now, then in zip(outcome.attributions, before[2]))
    assert first.facts[0].empty_maps == second.facts[0].empty_maps == 1
    assert first.facts[0].attributions == outcome.attributions and first.facts[0].refusal is None


def test_the_time_of_rendering_is_given_back_and_told(responder: Responder) -> None:
    outcome = finished()
    rendered = responder.respond(REST, [outcome])
    (facts,) = rendered.facts
    assert facts.seconds["render"] > 0.5 and {**facts.seconds, "render": 0.5} == outcome.seconds
    told = document(rendered)["timing_ms"]
    assert (told["decode"], told["forward"], told["explain"]) == (1.0, 2.0, 3.0)
    assert 500 < told["render"] <= round(1000 * facts.seconds["render"], 2)


def test_a_fault_in_rendering_ends_its_own_item_alone(responder: Responder) -> None:
    broken: Any = replace(finished(), geometry=None)
    rendered = responder.respond(v1(3), [finished(), broken, Refused(Refusal(415, "no picture"))])
    entries = document(rendered)["explanations"]
    assert [entry.get("code") for entry in entries] == [None, 500, 415] and rendered.answer.status == 200
    assert [each.refusal.code if each.refusal else None for each in rendered.facts] == [None, 500, 415]


def test_an_answer_that_is_too_large_refuses_all_of_its_row(responder: Responder) -> None:
    tight = replace(responder, limits=Limits(max_response_bytes=2_000))
    rendered = tight.respond(v1(2), [finished(), finished()])
    assert rendered.answer.status == 413 and "too large" in document(rendered)["error"]
    assert [each.refusal.code if each.refusal else None for each in rendered.facts] == [413, 413]


@pytest.mark.parametrize("sharing", [1, 2, 4])
def test_items_share_the_room_of_an_answer_alike(responder: Responder, sharing: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    outcome = replace(finished(overlay=True), photograph=shown(Image.fromarray(noise)))
    room = 400_000
    shared = replace(responder, limits=Limits(max_response_bytes=room))
    rendered = shared.respond(v1(sharing), [outcome] * sharing)
    assert rendered.answer.status == 200 and len(rendered.answer.body) <= room
    sides = [entry["explanations"][0]["overlay"]["width"] for entry in document(rendered)["explanations"]]
    # Noise hardly compresses, and twice the side would take more than four times the bytes: it averages out.
    assert sides == [sides[0]] * sharing and room / 5 < len(rendered.answer.body)


@pytest.mark.parametrize("overlay", [False, True])
def test_the_first_size_is_one_that_could_fit_at_best(responder: Responder, overlay: bool) -> None:
    """Photographs take half a byte for a pixel at best and grey maps a fiftieth: a larger size is not even drawn."""
    room = 21_000
    outcome = replace(finished(overlay=overlay), photograph=shown(Image.new("RGB", (1000, 400), (40, 80, 120))))
    shared = replace(responder, limits=Limits(max_response_bytes=room))
    (entry,) = document(shared.respond(REST, [outcome]))["explanations"]
    assert entry["heatmap"]["width"] == (200 if overlay else 1000)


def test_the_lines_of_a_stream_say_whether_more_follow(responder: Responder) -> None:
    outcome = finished(stream=True)
    line = responder.line(outcome)
    assert isinstance(line, Rendered) and line.answer.more is True and line.facts[0].seconds["render"] > 0.5
    last, alone = responder.respond(REST, [outcome], lines=1).answer, responder.respond(REST, [outcome]).answer
    assert last.more is False and alone.more is None
    refused = responder.respond(REST, [Refused(Refusal(507, "out of memory"), outcome.request)], lines=2).answer
    assert refused.more is False and json.loads(refused.body)["code"] == 507
    for answer in (line.answer, last, alone, refused):
        assert isinstance(answer.body, bytes) and answer.body.endswith(b"}\n") and answer.body.count(b"\n") == 1
        assert answer.content_type == "application/x-ndjson"
    begun = responder.respond(REST, [Refused(Refusal(507, "out of memory"), outcome.request)]).answer
    assert begun.content_type == "application/json" and begun.more is None


def test_a_line_that_cannot_be_rendered_is_a_refusal(responder: Responder) -> None:
    broken: Any = replace(finished(stream=True), geometry=None)
    found = responder.line(broken)
    assert isinstance(found, Refusal) and found.code == 500


def test_a_description_is_an_answer_without_maps(responder: Responder) -> None:
    rendered = responder.respond(REST, [Described(Request(describes=True))])
    assert document(rendered)["methods"] and not rendered.facts[0].attributions


# Formats


@pytest.mark.parametrize("form", [form for form in FORMATS.values() if form.content is Content.PICTURE])
def test_a_picture_has_the_media_type_that_its_bytes_show(responder: Responder, form: Format) -> None:
    answer = responder.respond(REST, [finished(output=form.name)]).answer
    assert isinstance(answer.body, bytes)
    image = Image.open(io.BytesIO(answer.body))
    assert image.format is not None and answer.content_type == form.media_type == Image.MIME[image.format]
    assert image.size == (WIDTH, HEIGHT) and answer.headers["X-Explanation-Target-Index"] == "0"


def test_several_maps_of_an_array_stand_in_the_order_of_their_targets(responder: Responder) -> None:
    answer = responder.respond(REST, [finished((3.0, 1.0, 2.0), output="npy")]).answer
    assert isinstance(answer.body, bytes)
    values = np.load(io.BytesIO(answer.body))
    assert values.shape == (3, HEIGHT, WIDTH) and values.max((1, 2)).tolist() == [3.0, 1.0, 2.0]


def test_a_picture_format_is_one_row(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    def gif(image: Image.Image, text: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, "GIF")
        return stream.getvalue()

    monkeypatch.setitem(cast("dict[str, Format]", FORMATS), "gif", Format("gif", "image/gif", Content.PICTURE, gif))
    answer = responder.respond(REST, [finished(output="gif")]).answer
    assert answer.content_type == "image/gif" and bytes(answer.body).startswith(b"GIF8")
    outputs = json.loads(responder.respond(v2(1), [finished(output="gif")]).answer.body)["outputs"]
    assert base64.b64decode(outputs[1]["data"][0]).startswith(b"GIF8")


def test_a_format_is_named_in_its_row_alone() -> None:
    serving = Path(FORMATS["png"].encode.__code__.co_filename).parents[1] / "serving"
    names = [path.name for path in serving.rglob("*.py") if '"webp"' in path.read_text(encoding="utf-8")]
    assert names == ["formats.py"]
