"""The methods of docs/write-a-method.md, each in under 20 lines, as modules of an archive that is asked for them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from PIL import Image
from torch import Tensor

from heatserve.serving.service import Row, Service
from tests.serving.small import Small, picture, small_service
from tests.serving.test_extensions import archive, as_before  # noqa: F401  the fixture cleans the registry
from tests.serving.test_handler import VIEW
from tests.test_docs import blocks

PHOTO = picture(32, 32, seed=4)
VIEWED = VIEW(Image.open(io.BytesIO(PHOTO)).convert("RGB"))[None]
TARGET = 2


def layer() -> Tensor:
    """`sum_k ReLU(dy/dA_k A_k)` by autograd, brought to the view."""
    net = Small().eval()
    activation = net.trunk(VIEWED).detach().requires_grad_()
    score = net.linear(net.pool(activation).flatten(1))[0, TARGET]
    (gradient,) = torch.autograd.grad(score, activation)
    coarse = (gradient * activation).relu().sum(1, keepdim=True)
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")[0, 0].detach()


def of_input() -> Tensor:
    return Saliency(Small().eval()).attribute(VIEWED, target=TARGET, abs=False)[0].sum(0)


def score() -> Tensor:
    """The score of each of 8 x 8 squares alone, one after another."""
    net, found = Small().eval(), torch.zeros(32, 32)
    for row in range(0, 32, 4):
        for column in range(0, 32, 4):
            alone = torch.zeros_like(VIEWED)
            alone[:, :, row : row + 4, column : column + 4] = VIEWED[:, :, row : row + 4, column : column + 4]
            with torch.no_grad():
                found[row : row + 4, column : column + 4] = net(alone)[0, TARGET]
    return found


WRITTEN = {"elementwise": layer, "brightness": of_input, "squares": score}


def answered(service: Service, method: str) -> np.ndarray:
    headers = {"content-length": "1", "explain": "True", "url_path": method}
    headers |= {"x-explain-output": "npy", "x-explain-target": str(TARGET)}
    row = Row("1", {"body": bytearray(PHOTO)}, headers)
    while True:
        answers = service.call([row]).answers
        if "1" in answers:
            assert answers["1"].status == 200, answers["1"].body
            return np.asarray(np.load(io.BytesIO(answers["1"].body)))


def test_each_is_under_twenty_lines_and_is_answered_by_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = blocks("write-a-method.md", "python")
    assert len(sources) == len(WRITTEN)
    for source in sources:
        assert len([line for line in source.splitlines() if line.strip()]) < 20
    modules = {f"brought_{name}": source for name, source in zip(WRITTEN, sources)}
    folder = archive(tmp_path, monkeypatch, **modules)
    service = small_service(folder, {"explain": {"extensions": [*modules]}})
    for name, expected in WRITTEN.items():
        found, wanted = answered(service, name), expected().numpy()
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max(), name
        assert np.abs(wanted).max() > 0
