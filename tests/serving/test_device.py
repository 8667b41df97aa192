"""The device of a worker: the card that TorchServe assigned becomes CUDA's current one."""

from __future__ import annotations

import pytest
import torch

from heatserve.torchserve.device import device_of


def test_the_assigned_card_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert device_of(3) == torch.device("cuda:3") and current == [torch.device("cuda:3")]


def test_a_worker_without_a_card_sets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: pytest.fail("there is no card"))
    assert device_of(None) == torch.device("cpu")
