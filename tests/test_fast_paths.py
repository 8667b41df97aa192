"""Every shortcut is on in an ordinary run of the tests, and off in a run with `--plain-paths`."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatserve.engine.launch
import heatserve.serving.service
from heatserve.engine import Explainer, Query, begun
from heatserve.engine.captured import CapturedPasses
from heatserve.engine.launch import Eager
from heatserve.engine.sizes import SIZES, sizes_of
from heatserve.imaging import Geometry, decode, opened, png_file
from heatserve.serving.scheduling import Policy
from heatserve.serving.service import Row, Service
from tests.plain_paths.sitecustomize import CHANGES
from tests.serving.small import Small, picture, small_service


@pytest.fixture
def fast(request: pytest.FixtureRequest) -> bool:
    return not request.config.getoption("--plain-paths")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.delenv("HEATSERVE_PICTURE_THREADS", raising=False)
    return small_service(tmp_path, {"continuousBatching": True})


def answered(service: Service, **options: Any) -> None:
    headers = {f"X-Explain-{name}": str(value) for name, value in options.items()}
    rows = [Row("a", {"body": picture(200, 150)}, {"Content-Length": "1", "explain": "True", **headers})]
    while (reply := service.call(rows)).left:
        pass
    assert reply.answers["a"].status == 200


def of(name: str, change: str) -> Any:
    *outer, last = change.split(".")
    module = sys.modules[f"heatserve.{name}"]
    return getattr(getattr(module, outer[0]) if outer else module, last)


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, several in CHANGES.items() for change in several]
)
def test_all_modules_have_the_products_own_function_or_all_have_the_plain_one(
    name: str, change: str, fast: bool
) -> None:
    found, own = of(name, change), f"heatserve.{name}"
    assert (found.__module__ == own) is fast
    named = {module: vars(sys.modules[module]).get(change) for module in sys.modules if module.startswith("heatserve.")}
    assert [m for m, other in named.items() if getattr(other, "__module__", "") == own and other is not found] == []


def test_convolutions_are_folded_padded_ordered_and_packed(fast: bool) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    explainer = Explainer(model, torch.rand(2, 3, 16, 16), optimize="packed")
    made, ordered = explainer.optimized, explainer.optimized.layout is torch.channels_last
    assert (made.folded, made.packed, ordered) == ((1, 1, True) if fast else (0, 0, False))
    explainer.close()


def test_an_archive_that_says_nothing_has_the_shortcuts(service: Service, fast: bool) -> None:
    assert (service.explainer.optimized.layout is torch.channels_last) is fast
    assert (service.loop._pool.threads >= 2) is fast
    assert (service.writer._pool.threads >= 2) is fast


def test_targets_of_one_picture_share_their_draws(service: Service, fast: bool) -> None:
    images = []
    service.explainer.model.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    answered(service, method="smoothgrad", samples=6, target="top2")
    assert sum(images) == (7 if fast else 13)


def test_targets_of_one_picture_share_the_samples_of_smoothdiff(fast: bool) -> None:
    image = torch.rand(3, 32, 32)
    first = begun(image, Query("smoothdiff", target=0))
    assert (begun(image, Query("smoothdiff", target=1), beside=[first]).means is first.means) is fast


def test_the_gradient_in_front_of_a_linear_head_needs_no_backward_pass(
    service: Service, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **named: passes.append(1) or grad(*args, **named))
    answered(service, method="gradcam")
    assert (not passes) is fast


def test_passes_have_fixed_sizes_and_are_captured_where_the_device_can(fast: bool) -> None:
    class Capturing(Eager):
        captures = True

    explainer = Explainer(Small().eval(), torch.rand(2, 3, 32, 32))
    assert CapturedPasses(explainer.network, Capturing()).capture(torch.rand(1, 3, 32, 32), 2, "float32") is fast
    assert (sizes_of(torch.device("cuda")) == SIZES) is fast
    explainer.close()


@pytest.mark.gpu
def test_a_card_has_streams_of_its_own_and_noise_in_one_launch(fast: bool) -> None:
    card = torch.device("cuda")
    assert isinstance(heatserve.engine.launch.launches_of(card), heatserve.engine.launch.Cuda) is fast
    if hasattr(torch.ops.aten, "_philox_normal_"):
        assert heatserve.engine.noise.keys_work(card) is fast


def test_a_chunk_grows_as_far_as_its_time_allows(fast: bool) -> None:
    policy = Policy()
    policy.passed(1, 1.0)
    for _ in range(6):
        policy.finished(policy.size(16), 1, 0.001)
    assert (policy.size(16) == 16) is fast


def test_a_file_is_opened_once_and_its_photograph_reduced_where_it_is_shown(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, again = opened(picture(), 10**6), []
    monkeypatch.setattr(
        sys.modules["heatserve.imaging.decode"], "opened", lambda *given: again.append(1) or opened(*given)
    )
    found = decode(picture(), 10**6, False, file)
    assert (not again) is fast
    assert (found.shown(20, pixels=False).image is None) is fast
    assert found.shown(20, pixels=True).image is not None


def test_a_map_is_drawn_from_its_own_few_values(service: Service, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sides, project = [], Geometry.on_picture
    monkeypatch.setattr(Geometry, "on_picture", lambda own, of, *size: sides.append(len(of)) or project(own, of, *size))
    answered(service, method="gradcam", output="png")
    assert sides == [8 if fast else 32]


def test_a_png_has_one_filter_for_all_of_its_rows(fast: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    noise[::2] = noise[:1]  # rows for which general encoders choose another filter
    file = png_file(Image.fromarray(noise))
    start = file.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompressobj().decompress(file[start:]), np.uint8).reshape(40, 41)
    assert (len(set(rows[:, 0].tolist())) == 1) is fast
