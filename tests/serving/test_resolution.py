"""Maps of blocks through the service: where their blocks lie, what an answer says of them, and what is refused."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from heatserve.client.results import Result
from heatserve.engine import Explainer, Query
from heatserve.serving.answers import Answer
from heatserve.serving.service import Row, Service
from heatserve.serving.values import SettingsError
from tests.engine.networks import distance
from tests.serving.small import Small, picture, small_service

CONTINUOUS = {"continuousBatching": True, "batchSize": 4}
#: A view whose sides differ, and that blocks of 5 do not fill.
WIDE = {"preprocess": {"resize": [28, 44]}}


@pytest.fixture(params=["ordinary", "continuous"], scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    mode = CONTINUOUS if request.param == "continuous" else {}
    yield small_service(tmp_path_factory.mktemp("archive"), {**WIDE, **mode})


def row(name: str = "a", explain: str = "True", **options: Any) -> Row:
    headers = {"Content-Length": "1", **{f"X-Explain-{k}": str(v) for k, v in options.items()}}
    return Row(name, {"body": picture()}, {**headers, **({"explain": explain} if explain else {})})


def ask(service: Service, *rows: Row) -> tuple[dict[str, Answer], list[dict[str, Any]]]:
    """The answers of rows, and the lines of their streams."""
    answers: dict[str, Answer] = {}
    lines = []
    while len(answers) < len(rows):
        reply = service.call([one for one in rows if one.id not in answers])
        answers.update({name: answer for name, answer in reply.answers.items() if name not in reply.lines})
        lines += [content(line) for line in reply.lines.values()]
    return answers, lines


def content(answer: Answer) -> dict[str, Any]:
    return dict(answer.body) if isinstance(answer.body, Mapping) else dict(json.loads(bytes(answer.body)))


def explanation(service: Service, **options: Any) -> dict[str, Any]:
    answers, _ = ask(service, row(**options))
    assert answers["a"].status == 200, answers["a"].body
    return dict(content(answers["a"])["explanations"][0])


def raw(service: Service, **options: Any) -> tuple[NDArray[np.float32], Answer]:
    answers, _ = ask(service, row(output="npy", **options))
    assert answers["a"].status == 200, answers["a"].body
    return np.load(io.BytesIO(bytes(answers["a"].body))), answers["a"]  # type: ignore[arg-type]


def view_of(service: Service) -> torch.Tensor:
    """The model's view of the picture, as the network gets it for a prediction."""
    taken: list[torch.Tensor] = []
    handle = service.explainer.model.register_forward_pre_hook(lambda _m, given: taken.append(given[0].clone()))
    ask(service, row(explain=""))
    handle.remove()
    return taken[0].clone(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("side", [4, 5, 28])
@pytest.mark.parametrize("method", ["smoothgrad", "expected_gradients"])
def test_each_pixel_of_the_raw_map_has_the_value_of_its_block(service: Service, method: str, side: int) -> None:
    ours, answer = raw(service, method=method, samples=12, target=2, resolution=side)
    assert ours.shape == (28, 44)
    (pixels,) = Explainer(Small(), torch.rand(1, 3, 28, 44)).explain(
        view_of(service), Query(method, target=2, samples=12)
    )
    expected = np.zeros((28, 44))
    for y in range(0, 28, side):
        for x in range(0, 44, side):
            block = pixels.values[:, y : y + side, x : x + side].double().mean((1, 2))
            expected[y : y + side, x : x + side] = block.abs().max() if method == "smoothgrad" else block.sum()
    assert distance(torch.from_numpy(ours), torch.from_numpy(expected).float()) < 2e-3
    assert answer.headers["X-Explanation-Resolution"] == str(side)


def test_boxes_scale_and_pictures_are_those_of_the_raw_map(service: Service) -> None:
    options = {"method": "smoothgrad", "samples": 12, "target": 2, "resolution": 7}
    values, _ = raw(service, **options)
    found = explanation(service, boxes=True, **options)
    assert found["heatmap"]["scale"] == pytest.approx(np.percentile(values, 99), rel=1e-5)
    (box,) = found["boxes"]
    assert box["score"] == 1
    # The picture of 60 x 40 is shown whole by the view of 44 x 28: edges of boxes are edges of blocks.
    assert {box["x0"], box["x1"]} <= {round(x * 60 / 44) for x in (*range(0, 44, 7), 44)}
    assert {box["y0"], box["y1"]} <= {round(y * 40 / 28) for y in range(0, 29, 7)}
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["heatmap"]["data"]))), np.float64) / 255
    centres = [(int((y + 3.5) * 40 / 28), int((x + 3.5) * 60 / 44)) for y in range(0, 28, 7) for x in range(0, 42, 7)]
    blocks = [values[y, x] for y in range(3, 28, 7) for x in range(3, 42, 7)]
    shown = [heat[place] * found["heatmap"]["scale"] for place in centres]
    np.testing.assert_allclose(shown, np.clip(blocks, 0, found["heatmap"]["scale"]), atol=0.01 * values.max())


def test_an_answer_says_its_blocks_and_the_error_of_them(service: Service) -> None:
    found = explanation(service, method="smoothgrad", samples=20, target=2, resolution=4)
    (plain,) = Explainer(Small(), torch.rand(1, 3, 28, 44)).explain(
        view_of(service), Query("smoothgrad", target=2, samples=20, resolution=4)
    )
    assert found["parameters"]["resolution"] == 4
    assert plain.relative_error is not None
    assert found["quality"]["standard_error"] == pytest.approx(float(plain.relative_error), rel=1e-3)
    assert explanation(service, method="smoothgrad", samples=3)["parameters"]["resolution"] == 1
    assert explanation(service, method="gradient")["parameters"]["resolution"] is None
    assert explanation(service, samples=3)["parameters"]["resolution"] is None
    assert "X-Explanation-Resolution" not in raw(service, method="smoothgrad", samples=3)[1].headers


def test_several_targets_a_contrast_and_company(service: Service) -> None:
    options = {"method": "smoothgrad", "samples": 12, "resolution": 5}
    rows = [row("a", target="top3", contrast="nearest2", output="npy", **options), row("b", samples=30), row("c")]
    answers, _ = ask(service, *rows)
    assert {one.status for one in answers.values()} == {200}
    maps = np.load(io.BytesIO(bytes(answers["a"].body)))  # type: ignore[arg-type]
    best = Small()(view_of(service))[0].argsort(descending=True).tolist()[:3]
    for target, ours in zip(best, maps):
        alone, _ = raw(service, target=target, contrast="nearest2", **options)
        assert distance(torch.from_numpy(ours), torch.from_numpy(alone)) < 1e-4


def test_a_stream_ends_with_the_whole_answer_and_a_standard_error_ends_the_samples(service: Service) -> None:
    streamed = {"method": "smoothgrad", "samples": 200, "target": 2, "resolution": 5, "stream": "true"}
    answers, lines = ask(service, row(**streamed, standard_error=0.4))
    found = [Result.of(line).explanation for line in [*lines, content(answers["a"])]]
    assert found[-1].converged and found[-1].standard_error is not None and found[-1].standard_error <= 0.4
    assert 10 <= found[-1].samples_used < 200
    assert all(line["explanations"][0]["parameters"]["resolution"] == 5 for line in lines)


def test_a_deadline_gives_the_blocks_of_the_samples_that_there_are(tmp_path: Path) -> None:
    made = small_service(tmp_path, {**WIDE, **CONTINUOUS, "explain": {"chunk": 1}})
    found = explanation(made, method="smoothgrad", samples=200, resolution=5, deadline_ms=1)
    assert 2 <= found["quality"]["samples_used"] < 200 and found["quality"]["converged"] is False
    assert found["quality"]["standard_error"] is None or found["quality"]["standard_error"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resolution": 4}, "resolution has no meaning for gradcam; it belongs to: gradient, input_x_gradient, smooth"),
        ({"method": "vargrad", "resolution": 4}, "resolution has no meaning for vargrad"),
        ({"method": "integrated_gradients", "resolution": 4}, "resolution has no meaning for integrated_gradients"),
        ({"method": "rise", "resolution": 4}, "resolution has no meaning for rise"),
        ({"method": "gradient", "resolution": 4}, "resolution belongs to smoothed maps: ask for samples too"),
        ({"method": "smoothgrad", "resolution": 29}, "resolution must be at most 28, the shorter side of the model's"),
        ({"method": "smoothgrad", "resolution": 0}, "resolution must be a whole number from 1 to 1024"),
    ],
)
def test_blocks_without_meaning_are_refused(service: Service, options: dict[str, Any], said: str) -> None:
    answers, _ = ask(service, row(**options))
    assert answers["a"].status == 400 and said in content(answers["a"])["message"]


def test_an_archives_default_is_left_out_where_it_has_no_meaning(tmp_path: Path) -> None:
    made = small_service(tmp_path, {**WIDE, "explain": {"resolution": 4}})
    assert explanation(made, method="smoothgrad", samples=3)["parameters"]["resolution"] == 4
    assert explanation(made, method="smoothgrad", samples=3, resolution=1)["parameters"]["resolution"] == 1
    for options in ({}, {"method": "vargrad", "samples": 3}, {"method": "gradient"}):
        assert explanation(made, **options)["parameters"]["resolution"] is None
    answers, _ = ask(made, row(resolution=5))
    assert answers["a"].status == 400


def test_an_archives_default_that_is_larger_than_its_view_is_refused_at_load(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"explain\.resolution is 29; at most 28, the shorter side"):
        small_service(tmp_path, {**WIDE, "explain": {"resolution": 29}})
