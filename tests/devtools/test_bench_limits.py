"""The limits behind the figures: the profile finds the convolutions, and a network without kinks has no jumps."""

import torch
from torch import nn

from devtools.bench import limits
from devtools.bench.networks import Network


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()


def test_convolutions_are_found_in_the_profile_and_smooth_networks_have_no_kinks(monkeypatch):
    monkeypatch.setattr(limits, "NETWORKS", {"small": Network(linear, "1")})
    monkeypatch.setattr(limits, "photograph", lambda: torch.rand(1, 3, 32, 32))
    monkeypatch.setattr(limits, "COPIES", 8)
    shares = []
    found = {result.what: result.value for result in limits.measure(shares.append)}
    forwards, backwards = (
        found[f"SmoothGrad, time of convolutions {way}: small, float32, of all operations"]
        for way in ("forwards", "backwards")
    )
    assert forwards > 0 and backwards > 0 and forwards + backwards < 100
    assert found["SmoothGrad, time of convolutions backwards: small, bfloat16 against float32"] > 0
    assert found["noisy copies of 8 whose gradient jumps, alone against among four: small"] == 0
    assert shares == [1.0]
