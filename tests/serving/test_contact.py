"""The contact sheet: its pictures are those of the service's own answers, and its texts say what they cost."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heatserve.engine import METHODS, Query
from heatserve.imaging import Tile, UnreadableImage
from heatserve.serving import contact as module
from heatserve.serving.contact import contact
from heatserve.serving.service import Row, Service
from tests.serving.small import LABELS, picture, small_service
from tests.serving.test_extensions import MODULE, archive, as_before  # noqa: F401  the fixture cleans the registry

PHOTO = picture(60, 40, seed=2)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """The tiles of the sheets that are made from now on."""
    kept: list[Tile] = []
    theirs = module.sheet

    def sheet(heading: str, tiles: list[Tile], notes: list[str]) -> Image.Image:
        kept[:] = [*tiles, Tile(heading, notes, tiles[0].picture)]
        return theirs(heading, tiles, notes)

    monkeypatch.setattr(module, "sheet", sheet)
    return kept


def answered(service: Service, path: str, **headers: str) -> tuple[Any, dict[str, str]]:
    """The overlay in the service's answer, and the answer's headers."""
    row = Row(
        "1",
        {"body": bytearray(PHOTO)},
        {"content-length": "1", "explain": "True", "url_path": path, "accept": "image/png", **headers},
    )
    while True:
        reply = service.call([row])
        if "1" in reply.answers:
            answer = reply.answers["1"]
            assert answer.status == 200, answer.body
            return np.asarray(Image.open(io.BytesIO(answer.body))), dict(answer.headers)


def test_each_picture_is_the_overlay_that_the_service_answers_with(tmp_path: Path, tiles: list[Tile]) -> None:
    service = small_service(tmp_path)
    made = contact(service, PHOTO, "photo.png")
    photograph, *maps, _ = tiles
    assert np.array_equal(np.asarray(photograph.picture), np.asarray(Image.open(io.BytesIO(PHOTO)).convert("RGB")))
    assert [tile.title for tile in maps] == [*made.methods] == [*service.explainer.methods()]
    for tile in maps:
        method = METHODS[tile.title]
        few = (
            {"x-explain-samples": str(min(method.samples, 60 // Query(method.name).price))}
            if method.samples > 1 and method.drawn.random
            else {}
        )
        theirs, headers = answered(service, tile.title, **few)
        assert np.array_equal(np.asarray(tile.picture), theirs), tile.title
        assert LABELS[int(headers["X-Explanation-Target-Index"])] == made.target
        assert float(headers["X-Prediction-Probability"]) == pytest.approx(made.probability, abs=1e-5)


def test_a_method_with_many_samples_ends_early_and_its_tile_says_so(tmp_path: Path, tiles: list[Tile]) -> None:
    contact(small_service(tmp_path), PHOTO, "photo.png")
    texts = {tile.title: " ".join(tile.lines) for tile in tiles}
    assert "ONLY 20 OF 50 SAMPLES on this sheet: 61 of 151 passes" in texts["smoothgrad"]
    assert texts["gradcam"].startswith("1 pass, ") and texts["gradient"].startswith("4 passes, ")
    assert METHODS["eigencam"].caveat in texts["eigencam"]


def test_a_method_that_an_archive_brings_is_on_the_sheet(
    tmp_path: Path, tiles: list[Tile], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = archive(tmp_path, monkeypatch, brought_rise=MODULE)
    assert "rise" in contact(small_service(folder, {"explain": {"extensions": ["brought_rise"]}}), PHOTO, "p").methods


def test_the_sheet_says_what_is_not_on_it_and_that_weights_are_untrained(tmp_path: Path, tiles: list[Tile]) -> None:
    contact(small_service(tmp_path), PHOTO, "phöto.png")
    heading, notes = tiles[-1].title, " ".join(tiles[-1].lines)
    assert heading.startswith("small on ph") and heading.isascii()
    assert "Not for this network: legrad, attention_relevance, attention_rollout." in notes
    assert "THE WEIGHTS ARE THOSE THAT THE ARCHITECTURE MAKES" in notes
    assert "never shown to the network" in " ".join(tiles[0].lines)


def test_an_empty_map_is_called_empty(tmp_path: Path, tiles: list[Tile]) -> None:
    service = small_service(tmp_path)
    layer = service.explainer.model.trunk[2]
    layer.weight = torch.nn.Parameter(torch.zeros_like(layer.weight), requires_grad=False)
    layer.bias.data.fill_(-1)
    contact(service, PHOTO, "photo.png")
    texts = {tile.title: " ".join(tile.lines) for tile in tiles}
    assert "EMPTY MAP" in texts["gradcam"] and "EMPTY MAP" not in texts["photograph"]


def test_a_map_that_is_alike_everywhere_is_called_flat(
    tmp_path: Path, tiles: list[Tile], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = "from heatserve import Method, register\nregister(Method('{0}', 's', 't', 'input', lambda s: {1}, "
    registered += "lambda m: m.sum(0), display='maximum'))\n"
    values = {"even": "s.inputs * 0 + 1", "uneven": "s.inputs * 0 + s.inputs.new_tensor([0.0] * 16 + [1.0] * 16)"}
    modules = {f"brought_{name}": registered.format(name, value) for name, value in values.items()}
    folder = archive(tmp_path, monkeypatch, **modules)
    contact(small_service(folder, {"explain": {"extensions": [*modules]}}), PHOTO, "p")
    texts = {tile.title: " ".join(tile.lines) for tile in tiles}
    assert "FLAT MAP" in texts["even"] and "FLAT MAP" not in texts["uneven"]


def test_progress_names_each_method_before_it_and_ends_at_all(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    made = contact(small_service(tmp_path), PHOTO, "p", lambda *step: seen.append(step))
    count = len(made.methods)
    assert seen == [*((number, count, name) for number, name in enumerate(made.methods)), (count, count, "")]


def test_a_file_that_is_no_picture_is_an_error_of_the_decoder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage):
        contact(small_service(tmp_path), b"no picture", "p")
