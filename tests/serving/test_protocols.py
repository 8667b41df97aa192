"""Each protocol reads the pictures and options of its clients, and answers in their shape; without a server."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from ts.context import Context

from explain_handler import ExplainHandler
from heatserve.serving.protocols import KServeV1, KServeV2, Rest, protocol_of
from tests.open_inference import check_answer, check_error, check_request
from tests.serving.small import LABELS, Small, picture
from tests.serving.test_handler import EXPLAIN, PREDICT, ask, handler, view

INVOKE: dict[str, Any] = {"Content-Length": "1"}
GRPC: dict[str, Any] = {}
Made = tuple[ExplainHandler, Context]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return handler(tmp_path_factory.mktemp("archive"), {"explain": {"max_response_bytes": 300_000}})


def b64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def expected_prediction(image: bytes) -> dict[str, float]:
    with torch.no_grad():
        probabilities, classes = Small().eval()(view(image)).softmax(1)[0].topk(5)
    return {LABELS[c]: p for c, p in zip(classes.tolist(), probabilities.tolist())}


def expected_map(image: bytes, target: int) -> np.ndarray:
    model = Small().eval()
    gradcam = LayerGradCam(model, model.pool).attribute(
        view(image), target=target, attribute_to_layer_input=True, relu_attributions=True
    )
    return torch.nn.functional.interpolate(gradcam, (32, 32), mode="bilinear")[0, 0].detach().numpy()


def outputs(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    check_answer(answer)
    return {output["name"]: output for output in answer["outputs"]}


def tensor(output: dict[str, Any]) -> np.ndarray:
    return np.asarray(output["data"], np.float32).reshape(output["shape"])


@pytest.mark.parametrize(
    ("row", "headers", "protocol", "explains"),
    [
        ({"body": b"i"}, PREDICT, Rest, False),
        ({"body": b"i"}, EXPLAIN, Rest, True),
        ({"body": {"instances": []}}, EXPLAIN, KServeV1, True),
        ({"body": {"inputs": []}}, PREDICT, KServeV2, False),
        ({"body": {"data": "", "explain": True}}, INVOKE, Rest, True),
        ({"body": {"data": "", "explain": "no"}}, INVOKE, Rest, False),
        ({"body": {"instances": [], "explain": True}}, INVOKE, KServeV1, True),
        ({"data": b"i", "explain": b"true"}, INVOKE, Rest, True),
        ({"data": b"i", "explain": b"true"}, PREDICT, Rest, False),
        ({"data": b"i", "explain": b"true"}, GRPC, Rest, True),
        ({"data": b"i", "explain": b"\xff"}, GRPC, Rest, False),
        ({"data": b"i"}, {"data": {"content-type": None}}, Rest, False),
        # Over gRPC an input may have any name.
        ({"content-length": b"5", "explain": b"true"}, {"content-length": {"content-type": None}}, Rest, True),
        (None, GRPC, Rest, False),
        ("text", EXPLAIN, Rest, True),
    ],
)
def test_a_row_finds_its_protocol(row: Any, headers: dict[str, Any], protocol: type, explains: bool) -> None:
    found = protocol_of(row, headers)
    assert type(found) is protocol and found.explains is explains
    assert found.http is any(isinstance(value, str) for value in headers.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON,
        "shape": JSON | st.lists(st.integers(-2, 9)),
        "datatype": JSON | st.sampled_from(["BYTES", "FP32"]),
        "data": JSON,
        "parameters": JSON,
    },
)


@given(
    body=st.fixed_dictionaries({"instances": JSON}, optional={"explain": JSON, "method": JSON})
    | st.fixed_dictionaries(
        {"inputs": JSON | st.lists(INPUT, max_size=3)}, optional={"parameters": JSON, "outputs": JSON, "id": JSON}
    ),
    headers=st.sampled_from([PREDICT, EXPLAIN, INVOKE, GRPC]),
)
def test_any_body_has_one_answer_in_one_shape(body: Any, headers: dict[str, Any], small: Made) -> None:
    ((status, answer, _),) = ask(small, ({"body": body}, headers))
    assert status in (200, 400, 413, 415), answer
    if status != 200 and len(protocol_of({"body": body}, headers).inputs) == 1:
        assert answer.keys() >= {"error", "code", "type", "message"}
    elif "inputs" in body:
        outputs(answer)


def test_the_first_protocol_answers_every_instance_in_its_place(small: Made) -> None:
    images = [picture(seed=seed) for seed in range(3)]
    sent = [{"data": b64(images[0])}, {"data": "!"}, b64(images[1]), {"b64": b64(images[2])}, {"data": b64(b"text")}, 7]
    ((status, answer, headers),) = ask(small, ({"body": {"instances": sent}}, PREDICT))
    assert status == 200 and headers["content-type"] == "application/json" and answer.keys() == {"predictions"}
    for index, image in ((0, images[0]), (2, images[1]), (3, images[2])):
        assert answer["predictions"][index] == pytest.approx(expected_prediction(image), abs=1e-6)
    assert [answer["predictions"][index]["code"] for index in (1, 4, 5)] == [400, 415, 400]
    assert all(answer["predictions"][index]["error"] for index in (1, 4, 5))


def test_the_first_protocol_explains_with_each_instances_own_options(small: Made) -> None:
    image = picture()
    sent = [
        {"data": b64(image), "target": 2},
        {"data": b64(image), "target": "top2", "method": "cam", "overlay": True},
        {"data": b64(image), "method": "lime"},
    ]
    ((status, answer, _),) = ask(small, ({"body": {"instances": sent, "boxes": True}}, EXPLAIN))
    assert status == 200
    first, second, third = answer["explanations"]
    entry = first["explanations"][0]
    heat = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["heatmap"]["data"])))) / 255 * entry["heatmap"]["scale"]
    )
    assert heat.max() == pytest.approx(expected_map(image, 2).max(), rel=0.02) and entry["boxes"]
    assert [each["method"] for each in second["explanations"]] == ["cam", "cam"] and second["explanations"][0][
        "overlay"
    ]
    assert third["code"] == 400 and "method must be one of" in third["error"]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"instances": []}, 400, "instances must be a list"),
        ({"instances": {"data": ""}}, 400, "instances must be a list"),
        ({"instances": [{}] * 65}, 413, "instances: at most 64"),
        ({"instances": [{"data": "!"}]}, 400, "data is not valid base64"),
        ({"inputs": []}, 400, "inputs must be a list"),
        ({"inputs": [{"datatype": "BYTES", "shape": [2], "data": ["aQ=="]}]}, 400, "data must hold as many"),
        ({"inputs": [{"datatype": "INT8", "shape": [1], "data": [1]}]}, 400, "datatype must be BYTES"),
        (
            {"inputs": [{"datatype": "FP32", "shape": [3, 2, 2], "data": [0.5] * 12}]},
            400,
            "shape: the model's view is (3, 32, 32)",
        ),
        (
            {"inputs": [{"datatype": "FP32", "shape": [1, 3, 32, 32], "data": [float("nan")] * 3072}]},
            400,
            "data must be numbers from",
        ),
        ({"inputs": [{"datatype": "FP32", "shape": [3, 32, 32], "data": ["x"]}]}, 400, "data must be numbers"),
        ({"inputs": [{"datatype": "BYTES", "shape": [0], "data": []}]}, 400, "shape must be"),
        ({"inputs": [{"datatype": "BYTES", "shape": [65], "data": ["aQ=="] * 65}]}, 413, "inputs: at most 64"),
        (
            {"inputs": [{"datatype": "BYTES", "shape": [1], "data": ["aQ=="]}], "outputs": [{"name": "x"}]},
            400,
            "there is no output",
        ),
        (
            {"inputs": [{"datatype": "BYTES", "shape": [1], "data": ["aQ=="]}], "parameters": 1},
            400,
            "parameters must be",
        ),
    ],
)
def test_a_request_that_fails_as_a_whole_is_told_so_as_kserves_clients_expect(
    small: Made, body: Any, code: int, said: str
) -> None:
    ((status, answer, _),) = ask(small, ({"body": body}, EXPLAIN))
    assert (status, answer["error"][: len(said)]) == (code, said)
    assert answer["code"] == code and answer["message"] == answer["error"]
    if "inputs" in body:
        check_error(answer)


def test_the_second_protocol_predicts_from_pictures_and_from_views(small: Made) -> None:
    images = [picture(seed=seed) for seed in range(3)]
    views = torch.cat([view(image) for image in images[1:]])
    body = {
        "id": "a-1",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64(images[0])]},
            {"name": "view", "datatype": "FP32", "shape": [2, 3, 32, 32], "data": views.flatten().tolist()},
        ],
    }
    check_request(body)
    ((status, answer, _),) = ask(small, ({"body": body}, PREDICT))
    assert status == 200 and (answer["id"], answer["model_name"], answer["model_version"]) == ("a-1", "small", "1.0")
    found = outputs(answer)
    assert found.keys() == {"prediction"} and found["prediction"]["shape"] == [3]
    for text, image in zip(found["prediction"]["data"], images):
        assert json.loads(text) == pytest.approx(expected_prediction(image), abs=1e-6)


def test_the_second_protocol_explains_with_typed_maps(small: Made) -> None:
    image = picture()
    body = {
        "parameters": {"target": 4},
        "inputs": [
            {"name": "a", "datatype": "BYTES", "shape": [1], "data": [b64(image)]},
            {"name": "b", "datatype": "BYTES", "shape": [1, 1], "data": ["!"]},
            {
                "name": "c",
                "datatype": "FP32",
                "shape": [3, 32, 32],
                "data": view(image).flatten().tolist(),
                "parameters": {"target": 1, "overlay": True},
            },
        ],
    }
    check_request(body)
    ((status, answer, _),) = ask(small, ({"body": body}, EXPLAIN))
    found = outputs(answer)
    assert status == 200 and found["heatmap_instance"]["data"] == [0, 2]
    maps = tensor(found["heatmap"])
    assert maps.shape == (2, 32, 32)
    for values, target in zip(maps, (4, 1)):
        expected = expected_map(image, target)
        assert np.allclose(values, expected, atol=1e-5 * expected.max())
    about = [json.loads(text) for text in found["prediction"]["data"]]
    assert about[0]["explanations"][0]["target"]["index"] == 4 and about[1]["code"] == 400
    assert about[0]["explanations"][0]["scale"] == pytest.approx(expected_map(image, 4).max(), rel=1e-4)
    assert Image.open(io.BytesIO(base64.b64decode(found["overlay"]["data"][0]))).size == (32, 32)


def test_the_picture_of_a_view_shows_what_the_model_saw(small: Made) -> None:
    image = picture()
    body = {
        "inputs": [{"name": "v", "datatype": "FP32", "shape": [3, 32, 32], "data": view(image).flatten().tolist()}],
        "parameters": {"output": "png", "opacity": 0},
    }
    ((_, answer, _),) = ask(small, ({"body": body}, EXPLAIN))
    heatmap = outputs(answer)["heatmap"]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(heatmap["data"][0]))).convert("RGB"), int)
    wanted = (
        Image.open(io.BytesIO(image)).convert("RGB").resize((54, 36), Image.Resampling.BILINEAR).crop((11, 2, 43, 34))
    )
    assert heatmap["datatype"] == "BYTES" and np.abs(shown - np.asarray(wanted, int)).max() <= 1


def test_only_the_outputs_that_are_asked_for_are_sent(small: Made) -> None:
    body = {
        "inputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "data": [b64(picture())]}],
        "outputs": [{"name": "heatmap"}],
    }
    ((_, answer, _),) = ask(small, ({"body": body}, EXPLAIN))
    assert outputs(answer).keys() == {"heatmap"}


def test_several_targets_of_one_picture_are_several_maps_of_one_instance(small: Made) -> None:
    body = {
        "inputs": [
            {"name": "a", "datatype": "BYTES", "shape": [1], "data": [b64(picture())], "parameters": {"target": "top3"}}
        ]
    }
    ((_, answer, _),) = ask(small, ({"body": body}, EXPLAIN))
    found = outputs(answer)
    assert found["heatmap"]["shape"] == [3, 32, 32] and found["heatmap_instance"]["data"] == [0, 0, 0]


@pytest.mark.parametrize("method", ["gradcam", "cam"])
def test_several_targets_beside_a_prediction_take_one_forward_pass(
    small: Made, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = torch.nn.Linear.forward

    def counted(self: torch.nn.Linear, given: torch.Tensor) -> torch.Tensor:
        rows.append(len(given))
        return forward(self, given)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    body = {"data": b64(picture()), "target": "top3", "method": method}
    answers = ask(small, ({"body": body}, EXPLAIN), ({"body": bytearray(picture(seed=1))}, PREDICT))
    assert len(answers[0][1]["explanations"]) == 3 and answers[1][0] == 200
    assert rows == [2]


def test_binary_tensors_are_refused_with_the_way_out(small: Made) -> None:
    headers = {**EXPLAIN, "Inference-Header-Content-Length": "100"}
    ((status, answer, _),) = ask(small, ({"body": bytearray(b"{}...")}, headers))
    assert status == 400 and "binary_data=False" in answer["message"]


def test_envelopes_hold_no_streams_and_the_first_protocol_no_arrays(small: Made) -> None:
    for options, said in (({"stream": True}, "stream has no meaning here"), ({"output": "npy"}, "output: this route")):
        ((status, answer, _),) = ask(small, ({"body": {"instances": [{"data": b64(picture()), **options}]}}, EXPLAIN))
        assert status == 400 and answer["error"].startswith(said)


def test_an_invocation_asks_with_a_member_and_answers_as_rest(small: Made) -> None:
    image = picture()
    row = {
        "model_name": bytearray(b"small"),
        "body": {"data": b64(image), "explain": True, "target": 3, "output": "npy"},
    }
    ((status, content, headers),) = ask(small, (row, INVOKE))
    assert status == 200 and headers["content-type"] == "application/x-npy"
    expected = expected_map(image, 3)
    assert np.allclose(np.load(io.BytesIO(content)), expected, atol=1e-5 * expected.max())
    ((_, plain, _),) = ask(small, ({"body": {"data": b64(image)}}, INVOKE))
    assert plain == pytest.approx(expected_prediction(image), abs=1e-6)


def test_grpc_takes_options_as_inputs_and_every_answer_is_the_last(small: Made) -> None:
    image = picture()
    rows = [
        ({"data": bytearray(image)}, GRPC),
        ({"data": bytearray(image), "explain": b"true", "target": b"3", "output": b"npy"}, GRPC),
        ({"data": bytearray(b"text"), "explain": b"true"}, GRPC),
    ]
    answers = ask(small, *rows)
    assert answers[0][1] == pytest.approx(expected_prediction(image), abs=1e-6)
    expected = expected_map(image, 3)
    assert np.allclose(np.load(io.BytesIO(answers[1][1])), expected, atol=1e-5 * expected.max())
    assert answers[2][1]["code"] == 415
    assert [small[1].stopping_criteria[index](None) for index in range(3)] == [True, True, True]


def test_the_frontends_own_grpc_of_the_second_protocol_gets_an_id_and_outputs_whatever_happens(small: Made) -> None:
    good = {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "data": [b64(picture())]}], "id": ""}
    for body in (good, {"inputs": []}, {"inputs": [], "id": 5}):
        ((_, answer, _),) = ask(small, ({"body": body}, GRPC))
        assert isinstance(answer["id"], str) and answer["model_name"] and answer["model_version"]
        assert outputs(answer)["prediction"]["data"]


def test_all_protocols_share_one_batch(small: Made) -> None:
    image = picture()
    answers = ask(
        small,
        ({"body": bytearray(image)}, PREDICT),
        ({"body": {"instances": [{"data": b64(image)}, {"data": "!"}]}}, PREDICT),
        ({"body": {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "data": [b64(image)]}]}}, PREDICT),
        ({"data": bytearray(image)}, GRPC),
        ({"body": {"data": b64(image)}}, INVOKE),
        ({"body": {"instances": 5}}, EXPLAIN),
        ({"data": bytearray(image), "method": bytearray(b"cam"), "output": bytearray(b"webp")}, EXPLAIN),
    )
    wanted = pytest.approx(expected_prediction(image), abs=1e-6)
    assert answers[0][1] == answers[3][1] == answers[4][1] == wanted
    assert (
        answers[1][1]["predictions"][0] == wanted
        and json.loads(outputs(answers[2][1])["prediction"]["data"][0]) == wanted
    )
    assert answers[5][0] == 400 and answers[6][2]["content-type"] == "image/webp"


def test_an_envelope_stays_below_the_limit_that_would_kill_the_worker(small: Made) -> None:
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900, 3), dtype=np.uint8)).save(noise, "PNG")
    entry = {"data": b64(noise.getvalue()), "overlay": True}
    ((status, answer, _),) = ask(small, ({"body": {"instances": [entry] * 4}}, EXPLAIN))
    assert status == 200 and len(json.dumps(answer)) <= 310_000
    assert all(each["explanations"][0]["overlay"]["width"] < 900 for each in answer["explanations"])
    views = {"name": "a", "datatype": "FP32", "shape": [32, 3, 32, 32], "data": [0.25] * (32 * 3072)}
    ((status, answer, _),) = ask(small, ({"body": {"inputs": [views], "parameters": {"target": "top6"}}}, EXPLAIN))
    assert status == 413 and "too large" in answer["error"]


def test_the_pixels_of_a_request_are_counted_over_all_its_pictures(tmp_path: Path) -> None:
    made = handler(tmp_path, {"explain": {"max_pixels": 5_000}})
    ((_, answer, _),) = ask(made, ({"body": {"instances": [b64(picture())] * 3}}, PREDICT))
    assert ["code" in each for each in answer["predictions"]] == [False, False, True]
    assert answer["predictions"][2]["code"] == 413


def test_an_instances_own_options_win_over_those_of_the_request(small: Made) -> None:
    image = picture()
    v1 = {"instances": [{"data": b64(image), "target": 2}, {"data": b64(image)}], "target": 4}
    ((_, answer, _),) = ask(small, ({"body": v1}, {**EXPLAIN, "X-Explain-Target": "5"}))
    assert [each["explanations"][0]["target"]["index"] for each in answer["explanations"]] == [2, 4]
    v2 = {
        "inputs": [
            {"name": "a", "datatype": "BYTES", "shape": [1], "data": [b64(image)], "parameters": {"target": 2}},
            {"name": "b", "datatype": "BYTES", "shape": [1], "data": [b64(image)]},
        ],
        "parameters": {"target": 4},
    }
    ((_, answer, _),) = ask(small, ({"body": v2}, {**EXPLAIN, "X-Explain-Target": "5"}))
    about = [json.loads(text) for text in outputs(answer)["prediction"]["data"]]
    assert [each["explanations"][0]["target"]["index"] for each in about] == [2, 4]


def test_a_picture_says_what_it_shows_in_its_headers_and_in_itself(small: Made) -> None:
    row = {"data": bytearray(picture()), "output": "png", "samples": "3", "seed": "7", "target": "5"}
    ((status, content, headers),) = ask(small, (row, EXPLAIN))
    text = Image.open(io.BytesIO(content)).text
    assert status == 200 and headers["X-Explanation-Seed"] == text["Explanation Seed"] == "7"
    assert headers["X-Explanation-Samples"] == text["Explanation Samples"] == "3"
    assert headers["X-Explanation-Target-Index"] == text["Explanation Target Index"] == "5"
    assert text["Prediction Label"] == next(iter(expected_prediction(picture())))
    assert float(text["Explanation Standard Error"]) > 0 and text["Explanation Method"] == "gradcam"
    # The label holds a forged line of the log.
    assert "\n" not in text["Explanation Target Label"] and "|" not in text["Explanation Target Label"]
    assert "small 1.0, weights w" in text["Model"] and text["Software"].startswith("heatserve ")
