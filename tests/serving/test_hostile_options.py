"""Hostile options of maps: what costs more than it counts, and what no method can answer, is that row's own fault."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from heatserve.engine import Query
from heatserve.engine.methods.occlusion import windows
from heatserve.engine.smoothing import Smoothing
from heatserve.serving import settings, start
from heatserve.serving.service import Row, Service
from heatserve.serving.states import Refused
from tests.serving.small import picture, unpacked
from tests.serving.test_activation import EXPLAIN, archive, ask

LAYERS = ["trunk.1", "trunk.3"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return archive(tmp_path_factory.mktemp("archive"), {"activation": "sigmoid", "layer": LAYERS})


@pytest.mark.parametrize("method", ["scorecam", "rise", "occlusion", "gradient", "integrated_gradients"])
def test_several_layers_for_a_method_that_has_one_or_none_are_a_400(service: Service, method: str) -> None:
    status, answer = ask(service, {"data": picture(), "method": method, "layer": "trunk.1+trunk.3"}, EXPLAIN)
    assert status == 400 and answer["message"].startswith("layer")


def test_an_archive_that_fuses_layers_answers_score_cam_from_its_first_one(tmp_path: Path) -> None:
    fused = archive(tmp_path, {"layer": "trunk.1+trunk.3"})
    status, answer = ask(fused, {"data": picture(), "method": "scorecam"}, EXPLAIN)
    assert status == 200 and answer["explanations"][0]["parameters"]["layer"] == "trunk.1"


class Largest(TorchDispatchMode):
    """A mode that notes the elements of the largest tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.elements = max(self.elements, found.numel())
        return found


def test_the_map_of_a_few_windows_takes_no_memory_for_each_window_and_pixel() -> None:
    smoothing = Smoothing(torch.rand(3, 300, 420), Query("occlusion", target=0, samples=40))
    smoothing.update(torch.rand(40))
    with Largest() as largest:
        smoothing.estimate()
    assert largest.elements <= 2 * 300 * 420


def test_a_place_that_no_window_covered_has_the_drop_of_the_nearest_one() -> None:
    scores = torch.rand(6, generator=torch.Generator().manual_seed(1))
    smoothing = Smoothing(torch.rand(3, 30, 44), Query("occlusion", target=0, samples=6))
    smoothing.update(scores)
    found = smoothing.estimate().values
    done = windows(30, 44)[:5]
    for y in range(30):
        for x in range(44):
            drops = [k for k, ((top, low), (left, right)) in enumerate(done) if top <= y < low and left <= x < right]
            if not drops:
                away = [
                    (((a + b - 1) / 2 - y) / 30) ** 2 + (((c + d - 1) / 2 - x) / 44) ** 2 for (a, b), (c, d) in done
                ]
                drops = [away.index(min(away))]
            expected = sum(float(scores[0] - scores[1 + k]) for k in drops) / len(drops)
            assert found[y, x] == pytest.approx(expected, abs=1e-6)


def test_score_cam_keeps_no_more_channels_than_it_draws() -> None:
    activations = torch.rand(64, 5, 5)
    smoothing = Smoothing(torch.rand(3, 20, 20), Query("scorecam", target=0, samples=4), activations)
    kept = [value for value in vars(smoothing._draws).values() if isinstance(value, torch.Tensor)]
    assert sum(value.untyped_storage().nbytes() for value in kept if value.shape[1:] == (5, 5)) <= 4 * 4 * 25
    smoothing.update(torch.rand(4))
    assert smoothing.estimate().facts["share_done"] == 4 / 64


def large(folder: Path, side: int) -> Service:
    """The service of an archive with a large view; the limits on work are the default ones."""
    manifest = unpacked(folder)
    config = {"preprocess": {"resize": side, "crop": side}, "explain": {"optimize": False}}
    return start.service(folder, manifest, settings.read_settings(config, {}), torch.device("cpu"))


def test_maps_of_a_large_view_are_bounded_by_the_memory_of_their_statistics(tmp_path: Path) -> None:
    """Six classes of 6 pictures at 1000 x 1000 would keep 36 statistics, of 120 MB each."""
    service = large(tmp_path, 1000)
    picked = {"data": base64.b64encode(picture()).decode(), "method": "vargrad", "target": "top6", "samples": 5}
    body = {"body": {"instances": [picked] * 6}}
    admitted = service.loop.admit(Row("a", body, EXPLAIN)).items
    other = service.loop.admit(Row("b", body, EXPLAIN)).items
    codes = [item.state.refusal.code if isinstance(item.state, Refused) else 200 for item in (*admitted, *other)]
    assert codes == [200] * 3 + [413] * 3 + [503] * 6


def test_a_large_view_still_has_one_map_that_takes_samples_and_maps_without_samples(tmp_path: Path) -> None:
    service = large(tmp_path, 1990)
    for options in ({"method": "rise", "samples": 2}, {"target": "top6"}):
        status, _ = ask(service, {"data": picture(40, 40), **options}, EXPLAIN)
        assert status == 200
    status, answer = ask(service, {"data": picture(40, 40), "method": "rise", "samples": 2, "target": "top6"}, EXPLAIN)
    assert status == 413 and "at most 5 maps" in answer["message"]
