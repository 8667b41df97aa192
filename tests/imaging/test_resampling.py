"""Values read between others, against NumPy's own linear interpolation and torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from heatserve.imaging.resampling import resize_weights, sampled

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [1, 2, 7, 224])
@pytest.mark.parametrize("step", [0.1, 0.375, 1.0])
def test_values_between_others_are_those_of_a_straight_line(count: int, step: float) -> None:
    values = RNG.standard_normal((count, 3)).astype(np.float32)
    centres = np.arange(-1.0, count + 1.0, step)  # also before the first value and behind the last
    expected = [np.interp(centres, np.arange(count) + 0.5, column) for column in values.T.astype(float)]
    assert np.abs(sampled(values, centres, step) - np.stack(expected, axis=1)).max() < 1e-6


@pytest.mark.parametrize("count, size", [(50, 20), (224, 100), (9, 2)])
def test_coarser_values_are_those_of_torch_behind_a_low_pass(count: int, size: int) -> None:
    values = RNG.standard_normal((count, 3)).astype(np.float32)
    step = count / size
    columns = torch.from_numpy(values)[None, None]
    expected = interpolate(columns, (size, 3), mode="bilinear", antialias=True)[0, 0].numpy()
    assert np.abs(sampled(values, (np.arange(size) + 0.5) * step, step) - expected).max() < 1e-5


@pytest.mark.parametrize("count, size", [(7, 224), (1, 5), (12, 12)])
def test_stretched_values_are_those_of_torch(count: int, size: int) -> None:
    values = torch.from_numpy(RNG.standard_normal(count).astype(np.float32))
    expected = interpolate(values[None, None], size, mode="linear", align_corners=False)[0, 0].numpy()
    for _ in range(2):  # the second time from memory
        assert np.abs(resize_weights(count, size) @ values.numpy() - expected).max() < 1e-6
