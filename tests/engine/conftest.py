"""What the engine's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from heatserve.engine import Explainer


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from threads, and lose much where other work shares the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    autouse=True, params=[False, pytest.param(True, marks=pytest.mark.fast_path)], ids=["plain", "optimized"]
)
def optimize(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test of the engine runs twice: on networks as they are, and on networks that are made faster at load."""
    monkeypatch.setitem(Explainer.__init__.__kwdefaults__, "optimize", request.param)
    return bool(request.param)
