"""Requests may fuse layers (`layer: a+b`) and contrast with the nearest classes; answers say so and name layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from heatserve.serving.service import Service
from heatserve.serving.settings import SettingsError, read_settings
from tests.serving.small import Small, picture
from tests.serving.test_activation import EXPLAIN, archive, ask, by_hand, maps, scores_of, seen, several

BOTH = ["trunk.1", "trunk"]
SENT = [picture(seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return archive(tmp_path_factory.mktemp("archive"), {"layer": BOTH})


def minus_nearest(count: int, target: int) -> Any:
    """The score of a target less the mean of the `count` scores that are nearest to it."""

    def score(scores: torch.Tensor) -> torch.Tensor:
        others = [index for index in range(len(scores)) if index != target]
        near = sorted(others, key=lambda index: abs(float((scores[index] - scores[target]).detach())))[:count]
        return scores[target] - torch.stack([scores[index] for index in near]).sum() / count

    return score


def fused_by_hand(sent: bytes, target: int) -> torch.Tensor:
    """The mean of the two layers' Grad-CAMs, each scaled to a maximum of 1, on the larger one's places, (32, 32)."""
    net = Small().eval()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    first = net.trunk[:2](seen(sent)).detach().requires_grad_()
    second = net.trunk[2:](first)
    y = net.linear(second.mean((2, 3)))[0, target]
    found = []
    for activation, gradient in zip((first, second), torch.autograd.grad(y, (first, second))):
        one = (gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True).relu().detach()
        scaled = one / one.max() if float(one.max()) > 0 else one
        found.append(nn.functional.interpolate(scaled, (16, 16), mode="bilinear", align_corners=False))
    mean = torch.stack(found).mean(0)
    return nn.functional.interpolate(mean, (32, 32), mode="bilinear", align_corners=False)[0, 0]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_nearest_classes_are_subtracted(service: Service, count: int) -> None:
    for sent in SENT:
        target = int(scores_of(sent).argmax())
        found = maps(service, sent, contrast=f"nearest{count}", layer="trunk")
        assert_close(found, by_hand(sent, minus_nearest(count, target)), atol=1e-4, rtol=1e-3)


def test_the_nearest_classes_of_a_named_target_in_a_mixed_batch(service: Service) -> None:
    bodies = [{"data": sent, "contrast": "nearest2", "target": 4, "layer": "trunk"} for sent in SENT]
    answers = several(service, [{"data": SENT[0]}, *bodies])[1:]
    for sent, answer in zip(SENT, answers):
        (entry,) = answer["explanations"]
        assert entry["parameters"]["contrast"] == "nearest2" and entry["target"]["index"] == 4
        expected = float(by_hand(sent, minus_nearest(2, 4)).max())
        assert entry["heatmap"]["scale"] == pytest.approx(expected, rel=0.1, abs=1e-4)


def test_the_nearest_classes_of_smoothed_maps_are_those_of_the_answer(service: Service) -> None:
    body = {"data": SENT[0], "method": "smoothgrad", "samples": 3, "contrast": "nearest1"}
    status, answer = ask(service, body, EXPLAIN)
    (found,) = answer["explanations"]
    assert status == 200 and found["parameters"]["contrast"] == "nearest1"
    (contrast,) = found["parameters"]["nearest"]
    _, answer = ask(service, {**body, "contrast": contrast}, EXPLAIN)
    (expected,) = answer["explanations"]
    assert found["heatmap"]["data"] == expected["heatmap"]["data"]
    assert found["heatmap"]["scale"] == pytest.approx(expected["heatmap"]["scale"], rel=1e-5)


@pytest.mark.parametrize("value", ["nearest0", "nearest6", "nearest11", "nearest", "nearest-1", "nearestx"])
def test_a_number_of_nearest_classes_that_there_is_not_is_refused(service: Service, value: str) -> None:
    status, found = ask(service, {"data": SENT[0], "contrast": value}, EXPLAIN)
    assert status == 400 and found["message"].startswith("contrast")


def test_a_contrast_with_the_target_itself_is_refused(service: Service) -> None:
    status, found = ask(service, {"data": SENT[0], "target": 2, "contrast": "2"}, EXPLAIN)
    assert status == 400 and found["message"].startswith("contrast is the target itself")


def test_several_layers_are_fused(service: Service) -> None:
    for target, sent in enumerate(SENT):
        found = maps(service, sent, layer="trunk.1+trunk", target=str(target))
        assert_close(found, fused_by_hand(sent, target), atol=1e-4, rtol=1e-3)
    _, answer = ask(service, {"data": SENT[0], "layer": "trunk.1+trunk"}, EXPLAIN)
    said = answer["explanations"][0]["parameters"]
    assert (said["layer"], said["layout"], said["layout_proved"]) == ("trunk.1+trunk", "nchw+nchw", True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": "trunk.1+trunk.2"}, "layer must be one of: trunk.1, trunk"),
        ({"layer": "trunk.1+trunk.1"}, "layer names a layer twice"),
        ({"layer": "trunk.1+"}, "layer must be"),
        ({"layer": "trunk.1+trunk", "method": "cam"}, "layer has no meaning for cam"),
        ({"layer": "trunk.1+trunk", "method": "gradient"}, "layer has no meaning for gradient"),
    ],
)
def test_layers_that_cannot_be_fused_are_refused(service: Service, options: dict[str, str], said: str) -> None:
    status, found = ask(service, {"data": SENT[0], **options}, EXPLAIN)
    assert status == 400 and found["message"].startswith(said)


@pytest.mark.parametrize("layer", ["trunk.1+trunk", ["trunk.1+trunk", "trunk.0"]])
def test_an_archive_may_fuse_layers_where_a_request_names_none(tmp_path: Path, layer: Any) -> None:
    fusing = archive(tmp_path, {"layer": layer})
    assert_close(maps(fusing, SENT[0], target="1"), fused_by_hand(SENT[0], 1), atol=1e-4, rtol=1e-3)
    found = maps(fusing, SENT[0], target="1", layer="trunk")
    assert_close(found, by_hand(SENT[0], lambda scores: scores[1]), atol=1e-4, rtol=1e-3)
    for method in ("gradient", "cam"):  # a default that has no meaning for a method is left out
        status, answer = ask(fusing, {"data": SENT[0], "method": method}, EXPLAIN)
        assert status == 200 and answer["explanations"][0]["parameters"]["layer"] in (None, "trunk")
        # A client that names the same layer gets no map of another one.
        status, found = ask(fusing, {"data": SENT[0], "method": method, "layer": "trunk.1+trunk"}, EXPLAIN)
        assert status == 400 and found["message"].startswith(f"layer has no meaning for {method}")
    _, described = ask(fusing, {}, {**EXPLAIN, "url_path": "describe"})
    assert described["options"]["layer"]["default"] == "trunk.1+trunk"


def test_a_fused_layer_of_the_archive_is_not_named_twice(tmp_path: Path) -> None:
    assert read_settings({"explain": {"layer": ["a+b", "b", "c"]}}, {}).layers == ("a", "b", "c")
    assert read_settings({"explain": {"layer": ["a", "b"]}}, {}).defaults == {}
    with pytest.raises(SettingsError, match="names a layer twice"):
        archive(tmp_path, {"layer": "trunk.1+trunk.1"})


def test_a_layout_is_proved_unless_an_operator_declared_it(service: Service, tmp_path: Path) -> None:
    declared = archive(tmp_path, {"layer": "trunk", "layout": "nchw"})
    for one, proved in ((service, True), (declared, False)):
        _, answer = ask(one, {"data": SENT[0]}, EXPLAIN)
        said = answer["explanations"][0]["parameters"]
        assert (said["layout"], said["layout_proved"]) == ("nchw", proved)
        _, described = ask(one, {}, {**EXPLAIN, "url_path": "describe"})
        assert described["layouts"]["trunk"] == {"layout": "nchw", "layout_proved": proved}
        _, answer = ask(one, {"data": SENT[0], "method": "gradient"}, EXPLAIN)
        said = answer["explanations"][0]["parameters"]
        assert (said["layout"], said["layout_proved"]) == (None, None)
