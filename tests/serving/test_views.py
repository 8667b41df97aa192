"""Archives whose view is not a square crop of three channels, and signed maps, through the whole service."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from heatserve.client.results import Explanation
from heatserve.engine import METHODS, Method, register, registry
from heatserve.serving import settings, start
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.service import Row, Service
from heatserve.serving.settings import SettingsError, read_settings

BOX = (72, 42, 96, 58)
SIZE = (150, 120)


class Light(nn.Module):
    """A network whose class 0 is the brightness of the picture, for views of `channels` channels."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.trunk = nn.Sequential(nn.Conv2d(self.channels, 4, 4, 4), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
        with torch.no_grad():
            self.trunk[0].weight[0], self.trunk[0].bias[:] = 1 / 48, 0
            if self.channels in (2, 4):
                self.trunk[0].weight[0, -1] = 0  # alpha is no brightness
            self.linear.weight[0] = torch.tensor([9.0, 0, 0, 0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.pool(self.trunk(x)).flatten(1))


class Grey(Light):
    channels = 1


class GreyAndAlpha(Light):
    channels = 2


class Alpha(Light):
    channels = 4


def served(folder: Path, view: dict[str, Any], network: str = "Light") -> Service:
    manifest = {"heatserve": {"architecture": f"tests.serving.test_views:{network}"}}
    return start.service(folder, manifest, settings.read_settings({"preprocess": view}, {}), torch.device("cpu"))


def plain(channels: int) -> dict[str, Any]:
    return {"mean": [0.0] * channels, "std": [1.0] * channels, **({} if channels == 3 else {"channels": channels})}


def block() -> bytes:
    pixels, stream = np.zeros((SIZE[1], SIZE[0], 3), np.uint8), io.BytesIO()
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def asked(service: Service, body: Any, **options: Any) -> tuple[int, Any]:
    headers = {"Content-Length": "1", "explain": "True", **{f"X-Explain-{k}": str(v) for k, v in options.items()}}
    reply = service.call([Row("a", body, headers)])
    while "a" not in reply.answers:
        reply = service.call([Row("a", body, headers)])
    answer = reply.answers["a"]
    whole = answer.body if isinstance(answer.body, dict) else json.loads(bytes(answer.body))
    return answer.status, whole


def test_a_view_that_no_batch_could_hold_is_refused_with_the_way_out() -> None:
    with pytest.raises(SettingsError, match=r"crop is null; .*set crop, or resize to \[height, width\]"):
        read_settings({"preprocess": {"resize": 320, "crop": None}}, {})


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"resize": [3]}, r"preprocess.resize is \[3\]; a whole number or \[height, width\]"),
        ({"channels": 5}, "preprocess.channels is 5; allowed: 1, 2, 3, 4"),
        ({"channels": True}, "preprocess.channels is True"),
        ({"channels": 1}, r"preprocess.mean is .*; one number is allowed"),
        ({"channels": 1, "mean": [0.5], "std": [0]}, "preprocess.std is .*; one positive number is allowed"),
        ({"letterbox": True}, r"letterbox: true needs preprocess.resize as \[height, width\]"),
        ({"letterbox": 1, "resize": [9, 9]}, "preprocess.letterbox is 1; allowed: true, false"),
        ({"fill": 3}, "preprocess.fill .* add letterbox: true"),
        ({"resize": [9, 9], "letterbox": True, "fill": [1, 2]}, r"preprocess.fill is \[1, 2\]; a whole number"),
        ({"resize": [9, 9], "letterbox": True, "fill": 256}, "preprocess.fill is 256"),
        ({"order": "rbg"}, "preprocess.order is 'rbg'; allowed: rgb, bgr"),
        ({"order": "bgr", "channels": 1, "mean": [0], "std": [1]}, "order: bgr needs 3 channels"),
        ({"resize": [3000, 3000]}, r"preprocess.resize is \[3000, 3000\], which makes 9000000 pixels"),
    ],
)
def test_a_view_that_cannot_be_is_refused_by_name(view: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_settings({"preprocess": view}, {})


def test_resize_to_height_and_width_alone_has_no_crop() -> None:
    found = read_settings({"preprocess": {"resize": [48, 80]}}, {})
    assert found.preprocess.crop is None and found.view == (48, 80) and found.channels == 3
    assert read_settings({"preprocess": {"resize": [48, 80], "crop": [40, 64]}}, {}).view == (40, 64)
    filled = {"resize": [48, 80], "letterbox": True, "fill": 114}
    assert read_settings({"preprocess": filled}, {}).preprocess.fill == (114, 114, 114)


VIEWS: dict[str, tuple[str, dict[str, Any]]] = {
    "stretch": ("Light", {"resize": [64, 64], **plain(3)}),
    "not square": ("Light", {"resize": [48, 96], **plain(3)}),
    "crop not square": ("Light", {"resize": 80, "crop": [64, 96], **plain(3)}),
    "letterbox": ("Light", {"resize": [96, 64], "letterbox": True, **plain(3)}),
    "grey": ("Grey", {"resize": [64, 64], **plain(1)}),
    "grey, cropped": ("Grey", {"resize": 72, "crop": 64, **plain(1)}),
    "grey with alpha": ("GreyAndAlpha", {"resize": [64, 64], **plain(2)}),
    "alpha": ("Alpha", {"resize": [64, 64], **plain(4)}),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_block_of_a_photograph_is_explained_where_it_is(name: str, tmp_path: Path) -> None:
    network, view = VIEWS[name]
    service = served(tmp_path, view, network)
    options = {"target": 0, "boxes": True, "overlay": True, "box_threshold": 0.5}
    status, whole = asked(service, {"body": block()}, **options)
    assert status == 200, whole
    entry = whole["explanations"][0]
    (box,) = entry["boxes"]
    assert np.abs(np.subtract([box[key] for key in ("x0", "y0", "x1", "y1")], BOX)).max() <= 6
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["heatmap"]["data"]))))
    assert heat.shape == SIZE[::-1] and "signed" not in entry
    rows, columns = np.nonzero(heat > 128)
    assert np.abs(np.subtract([columns.mean() + 0.5, rows.mean() + 0.5], [84, 50])).max() <= 3
    if "crop" not in view:
        assert whole["image"]["seen"] == [0, 0, *SIZE]
    assert service.responder.description["preprocess"]["channels"] == view.get("channels", 3)


def test_a_tensor_has_the_channels_and_sides_of_the_view(tmp_path: Path) -> None:
    service = served(tmp_path, {"resize": [48, 96], **plain(1)}, "Grey")
    values = np.random.default_rng(0).random((48, 96)).astype(np.float32)
    sent = {"name": "v", "datatype": "FP32", "shape": [1, 48, 96], "data": values.ravel().tolist()}
    status, whole = asked(service, {"body": {"inputs": [sent]}})
    assert status == 200, whole
    assert whole["outputs"][1]["shape"] == [1, 48, 96]
    status, whole = asked(service, {"body": {"inputs": [{**sent, "shape": [1, 96, 48]}]}})
    assert status == 400 and "the model's view is (1, 48, 96), or (N, 1, 48, 96)" in json.dumps(whole)


def test_a_network_for_other_channels_is_refused_with_the_number_it_got(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"view of 64 x 64 pixels \(preprocess.resize\): RuntimeError"):
        served(tmp_path, {"resize": [64, 64], **plain(3)}, "Grey")
    with pytest.raises(ArchiveError, match=r"\(preprocess.resize\) with preprocess.channels = 1: RuntimeError"):
        served(tmp_path, {"resize": [64, 64], **plain(1)}, "Light")


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[Service]:
    """A service with a signed method: bright places left of the middle speak for the class, others against it."""
    before = dict(METHODS)

    def attribute(signal: Any) -> torch.Tensor:
        sign = torch.ones_like(signal.inputs)
        sign[..., signal.inputs.shape[-1] // 2 :] = -1
        return signal.inputs * sign

    for name, display in (("halves", "maximum"), ("halves_capped", "percentile")):
        register(Method(name, "s", "t", "input", attribute, lambda one: one.sum(0), display=display, signed=True))
    yield served(tmp_path, {"resize": [64, 64], **plain(3)})
    registry._methods.clear()
    registry._methods.update(before)


@pytest.mark.parametrize("method", ["halves", "halves_capped"])
def test_a_signed_map_is_answered_with_both_signs(signed: Service, method: str) -> None:
    pixels, stream = np.zeros((64, 64, 3), np.uint8), io.BytesIO()
    pixels[10:20, 4:14], pixels[30:44, 40:60] = 255, 128
    Image.fromarray(pixels).save(stream, "PNG")
    status, whole = asked(signed, {"body": stream.getvalue()}, method=method, overlay=True, colormap="hot", boxes=True)
    assert status == 200
    entry = whole["explanations"][0]
    assert entry["signed"] is True and entry["quality"]["empty"] is False
    expected = pixels.sum(2) / 255.0 * np.where(np.arange(64) < 32, 1, -1)
    scale = np.abs(expected).max() if method == "halves" else np.percentile(np.abs(expected), 99)
    assert entry["heatmap"]["scale"] == pytest.approx(scale, rel=1e-5)
    explanation = Explanation.of(entry)
    assert explanation.signed
    assert np.abs(explanation.map - expected).max() <= scale / 127
    drawn = np.asarray(explanation.overlay).astype(int) - pixels
    assert (drawn[50:] == 0).all()  # no value, no colour
    assert drawn[35, 50, 2] > 30 and drawn[35, 50, 0] < 0  # blue: against
    assert drawn[15, 8, 0] == max(drawn[15, 8]) > drawn[15, 8, 2]  # red: for
    (box,) = entry["boxes"]
    assert (box["x0"], box["y0"], box["x1"], box["y1"]) == (4, 10, 14, 20)


def test_a_signed_map_that_is_zero_everywhere_is_empty_and_one_that_is_negative_is_not(signed: Service) -> None:
    for level, empty in ((0, True), (200, False)):
        pixels, stream = np.zeros((64, 64, 3), np.uint8), io.BytesIO()
        pixels[:, 40:] = level
        Image.fromarray(pixels).save(stream, "PNG")
        entry = asked(signed, {"body": stream.getvalue()}, method="halves", boxes=True)[1]["explanations"][0]
        assert entry["quality"]["empty"] is empty and entry["boxes"] == []
        assert Explanation.of(entry).map.max() == 0
