"""The photograph is reduced where the answer shows it, and for no other answer."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heatserve.engine import Attribution, Query
from heatserve.imaging import Photograph, Picture, header, inspect, plan, shown_ms
from heatserve.serving import drawing
from heatserve.serving.contract import Row
from heatserve.serving.scheduling import Policy
from heatserve.serving.service import Service
from heatserve.serving.states import Admitted
from tests.serving.small import picture, small_service

BODY = picture(900, 600)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return small_service(tmp_path_factory.mktemp("archive"), {"explain": {"max_side": 300}})


def row(**options: Any) -> Row:
    headers = {f"X-Explain-{name}": str(value) for name, value in options.items()}
    return Row("one", {"body": BODY}, {"Content-Length": "1", "explain": "True", **headers})


def answered(service: Service, asked: Row) -> Any:
    while (reply := service.call([asked])).left:
        pass
    answer = reply.answers["one"]
    assert answer.status == 200, answer
    return answer.body


WITHOUT = [{}, {"output": "npy"}, {"target": "top2", "boxes": "true"}, {"method": "gradient"}]
WITH = [{"overlay": "true"}, {"output": "png"}, {"output": "webp"}, {"output": "jpeg"}]


@pytest.mark.fast_path
@pytest.mark.parametrize("options", WITHOUT, ids=str)
def test_an_answer_without_the_photograph_reduces_nothing(
    service: Service, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Picture, "upright", lambda *_: pytest.fail("the photograph was reduced"))
    body = answered(service, row(**options))
    if options.get("output") != "npy":
        (entry, *_) = json.loads(body)["explanations"]
        assert (entry["heatmap"]["width"], entry["heatmap"]["height"]) == (300, 200) and "overlay" not in entry


@pytest.mark.parametrize("options", WITH, ids=str)
def test_an_answer_with_the_photograph_reduces_it_once(
    service: Service, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    upright = Picture.upright
    monkeypatch.setattr(Picture, "upright", lambda *of: made.append(upright(*of)) or made[-1])
    body = answered(service, row(**options))
    if "overlay" in options:
        body = base64.b64decode(json.loads(body)["explanations"][0]["overlay"]["data"])
    assert len(made) == 1 and made[0].size == Image.open(io.BytesIO(body)).size == (300, 200)


@pytest.mark.parametrize(("options", "shown"), [*((each, False) for each in WITHOUT), *((each, True) for each in WITH)])
def test_reducing_the_photograph_is_charged_where_it_is_done(
    service: Service, options: dict[str, str], shown: bool
) -> None:
    loop = service.loop
    loop.begin(["one"])
    ((item),) = loop.admit(row(**options)).items
    state = item.state
    assert isinstance(state, Admitted)
    header = inspect(BODY, 10**7)
    cost = header.decode_ms + service.settings.preprocess.cost_ms(900, 600)
    assert state.cost_ms == pytest.approx(cost + shown * shown_ms(900, 600, 300))
    loop.take("one")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(7, 7), (224, 224), (5, 9)])
def test_a_map_of_a_layer_is_drawn_as_its_map_on_the_view(size: tuple[int, int], orientation: int) -> None:
    """Two steps of resampling, one after the other, are the same as their product on the layer's values."""
    values = np.random.default_rng(orientation).standard_normal(size).astype(np.float32)
    geometry = plan(451, 300, 256, 224, orientation)
    width, height = (300, 451) if orientation >= 5 else (451, 300)
    of = drawing.view(geometry, Attribution(Query("gradcam", target=0), torch.from_numpy(values)))
    drawn = drawing.draw(Photograph((width, height), None), geometry, of, 1000)
    projected, seen = geometry.project(of.values, width, height)
    expected = np.rint(np.clip(projected, 0, of.scale) / of.scale * 255)
    assert np.abs(drawn.heat - expected).max() <= 1 and (drawn.heat != expected).mean() < 1e-3
    whole = np.zeros((height, width), bool)
    whole[drawn.seen] = True
    assert np.array_equal(whole, seen)
    with pytest.raises(ValueError, match="photograph"):
        drawn.overlay("jet", 0.5)


def test_a_signed_map_is_zero_where_the_model_saw_nothing() -> None:
    values = np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32)
    geometry = plan(451, 300, 256, 224)
    of = drawing.View(Attribution(Query("gradcam", target=0), torch.from_numpy(values)), values, values, 1.0, True)
    drawn = drawing.draw(Photograph((451, 300), None), geometry, of, 1000)
    outside = np.ones((300, 451), bool)
    outside[drawn.seen] = False
    assert outside.any() and (drawn.heat[outside] == 128).all()
    assert (drawn.heat[drawn.seen] < 128).any() and (drawn.heat[drawn.seen] > 128).any()


@pytest.mark.fast_path
def test_a_file_is_opened_once_unless_it_waits_for_a_step_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    read = header._opened
    monkeypatch.setattr(header, "_opened", lambda *of: opened.append(read(*of)) or opened[-1])
    service = small_service(tmp_path)
    for costly, times in ((False, 1), (True, 2)):
        opened.clear()
        monkeypatch.setattr(Policy, "costly", lambda *_, costly=costly: costly)
        item = service.loop.admit(row()).items[0]
        assert isinstance(item.state, Admitted) and (item.state.opened is None) is costly
        service.loop.take("one")
        answered(service, row())
        assert len(opened) == 1 + times  # one of them for the row that was only admitted
