"""The fast reduction against Pillow's own: small pictures, and the place of what is shown up to the border."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from heatserve.imaging import reduce
from heatserve.imaging.reduce import reduced


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "_FAST", True)


@pytest.mark.parametrize("width", [33, 48, 64, 120])
def test_small_pictures_are_pillows(width: int) -> None:
    noise = Image.fromarray(np.random.default_rng(width).integers(0, 256, (430, 150, 3), np.uint8))
    size = (width, width * 2)
    own = np.asarray(noise.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0), int)
    assert np.abs(np.asarray(reduced(noise, size), int) - own).max() <= 1


def test_nothing_moves_where_the_border_cuts_blocks() -> None:
    across = 127 + 100 * np.sin(np.arange(2003) / 100 * 2 * np.pi)
    image = Image.fromarray(np.tile(across.astype(np.uint8)[None, :, None], (1203, 1, 3)))
    found, own = reduced(image, (280, 168)), image.resize((280, 168), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(found, int) - np.asarray(own, int))[:, 2:-2].max() <= 2
