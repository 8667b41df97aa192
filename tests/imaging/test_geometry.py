"""Coordinates: photograph -> view -> map -> photograph, against torchvision, torch, PIL and closed forms."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision import transforms

from heatserve.imaging import Geometry, Preprocess, decode, plan

# (width, height) of the upright photograph, resize, crop
PATHS = {
    "landscape": ((451, 300), 256, 224),
    "portrait": ((300, 451), 256, 224),
    "wide": ((500, 90), 256, 224),
    "small": ((60, 41), 256, 224),
    "whole": ((451, 300), None, None),
    "cropped alone": ((451, 300), None, 224),
    "padded": ((60, 41), None, 224),
    "reduced and padded": ((300, 451), 64, 96),
}
ORIENTATIONS = range(1, 9)


def drawn(size: tuple[int, int], centre: tuple[float, float], sigma: float) -> np.ndarray:
    """A bright blob on black, [height, width], at (x, y) in continuous coordinates."""
    width, height = size
    y, x = np.mgrid[:height, :width] + 0.5
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))


def centroid(values: np.ndarray) -> tuple[float, float]:
    y, x = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
    return float((x * values).sum() / values.sum()), float((y * values).sum() / values.sum())


def sent(upright: np.ndarray, orientation: int) -> bytes:
    """A file whose viewer shows `upright`: the pixels turned the other way, and the tag."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = inverse
    turned = Image.fromarray(np.repeat(np.uint8(np.rint(255 * upright))[..., None], 3, axis=2))
    turned.getexif()[0x0112] = inverse
    stored = ImageOps.exif_transpose(turned)
    exif[0x0112] = orientation
    stream = io.BytesIO()
    stored.save(stream, "PNG", exif=exif, compress_level=0)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(("size", "resize", "crop"), PATHS.values(), ids=PATHS)
def test_a_blob_comes_back_to_where_it_was_in_the_photograph(
    size: tuple[int, int], resize: int | None, crop: int | None, orientation: int
) -> None:
    check_round_trip(Preprocess(resize, crop, (0, 0, 0), (1, 1, 1)), size, orientation)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_blob_comes_back_where_the_model_saw_the_photograph_upright(orientation: int) -> None:
    upright = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), orientation="apply")
    check_round_trip(upright, (451, 300), orientation)


def check_round_trip(preprocess: Preprocess, size: tuple[int, int], orientation: int) -> None:
    width, height = size
    sigma = min(size) / 24
    centre = (
        width / 2 + 1.9 * sigma,
        height / 2 - 3.2 * sigma,
    )  # lies in every crop, mirrors nowhere onto itself
    photograph = drawn(size, centre, sigma)
    picture = decode(sent(photograph, orientation), 10**7)
    assert np.abs(np.asarray(picture.upright())[..., 0] / 255 - photograph).max() < 0.01

    tensor, geometry = preprocess.tensor(picture, 10**7)
    projected, seen = geometry.project(tensor[0].numpy(), width, height)

    assert projected.dtype == np.float32 and seen.dtype == np.bool_
    assert projected.shape == seen.shape == (height, width)
    assert (projected[~seen] == 0).all()
    found = centroid(projected)
    # One pixel of the photograph, or of the view where that is the coarser.
    tolerance = max(1.0, geometry.width / geometry.resized_width)
    assert abs(found[0] - centre[0]) < tolerance and abs(found[1] - centre[1]) < tolerance
    assert np.abs(projected - photograph)[seen].max() < 0.25

    x0, y0, x1, y1 = geometry.seen()
    rows, columns = np.nonzero(seen)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.subtract(edges, (x0, y0, x1, y1))).max() <= 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_box_around_a_blob_in_the_view_surrounds_it_in_the_photograph(orientation: int) -> None:
    size, centre = (451, 300), (262.0, 120.0)
    picture = decode(sent(drawn(size, centre, 6), orientation), 10**7)
    tensor, geometry = Preprocess(mean=(0, 0, 0), std=(1, 1, 1)).tensor(picture, 10**7)
    x, y = centroid(tensor[0].numpy())
    x0, y0, x1, y1 = geometry.box(x - 10, y - 20, x + 10, y + 20)
    assert abs((x0 + x1) / 2 - centre[0]) <= 1 and abs((y0 + y1) / 2 - centre[1]) <= 1
    factor = 300 / 256
    across, down = (40, 20) if orientation >= 5 else (20, 40)
    assert abs(x1 - x0 - across * factor) <= 1.5 and abs(y1 - y0 - down * factor) <= 1.5


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_map_turns_as_pil_turns_the_picture(orientation: int) -> None:
    values = np.random.default_rng(0).random((30, 41), np.float32)
    picture = Image.fromarray(values)
    picture.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    height, width = expected.shape
    projected, seen = plan(41, 30, None, None, orientation).project(values, width, height)
    assert seen.all()
    assert np.array_equal(projected, expected)


def test_the_seen_part_of_a_landscape_is_what_the_design_says() -> None:
    assert plan(451, 300, 256, 224).seen() == (94, 19, 357, 281)
    assert plan(451, 300, 256, 224, 3).seen() == (94, 19, 357, 281)
    assert plan(451, 300, 256, 224, 6).seen() == (19, 94, 281, 357)
    assert plan(100, 50, None, 20).seen() == (40, 15, 60, 35)
    assert plan(101, 50, None, (20, 30)).seen() == (36, 15, 66, 35)
    assert plan(101, 50, None, (20, 30), 2).seen() == (35, 15, 65, 35)
    assert plan(100, 50, None, 500).seen() == (0, 0, 100, 50)


sides = st.integers(1, 700)


@settings(max_examples=150, deadline=None)
@given(
    sides,
    sides,
    st.one_of(st.none(), st.integers(1, 300)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_sizes_and_crops_are_torchvisions(width: int, height: int, resize: int | None, crop: tuple[int, int]) -> None:
    if resize is not None and resize * max(width, height) / min(width, height) > 3000:
        resize = None
    # The pixel's own coordinates as its colour: where torchvision puts each, the plan must say.
    resized = Image.new("RGB", (width, height))
    if resize is not None:
        resized = transforms.Resize(resize)(resized)
    geometry = plan(width, height, resize, crop)
    assert (geometry.resized_width, geometry.resized_height) == resized.size
    marked = np.zeros((resized.height, resized.width, 3), np.uint8)
    marked[..., 0] = np.arange(resized.width) % 251 + 1
    marked[..., 1] = (np.arange(resized.height) % 251 + 1)[:, None]
    expected = transforms.CenterCrop(crop)(Image.fromarray(marked))
    left, top = geometry.crop_left, geometry.crop_top
    ours = Image.fromarray(marked).crop((left, top, left + geometry.crop_width, top + geometry.crop_height))
    assert np.array_equal(np.asarray(ours), np.asarray(expected))


@settings(max_examples=100, deadline=None)
@given(
    sides, sides, st.integers(1, 300), st.integers(1, 300), st.sampled_from(ORIENTATIONS), st.data()
)  # fmt: skip
def test_boxes_are_clipped_whole_pixels_and_never_empty_where_they_overlap(
    width: int, height: int, resize: int, crop: int, orientation: int, data: st.DataObject
) -> None:
    geometry = plan(width, height, resize, crop, orientation)
    upright_width, upright_height = (height, width) if orientation >= 5 else (width, height)
    x0, y0, x1, y1 = geometry.seen()
    assert 0 <= x0 < x1 <= upright_width and 0 <= y0 < y1 <= upright_height
    left, top = data.draw(st.integers(0, crop - 1)), data.draw(st.integers(0, crop - 1))
    box = geometry.box(left, top, data.draw(st.integers(left + 1, crop)), data.draw(st.integers(top + 1, crop)))
    assert all(isinstance(edge, int) for edge in box)
    assert x0 - 1 <= box[0] <= box[2] <= x1 + 1 and y0 - 1 <= box[1] <= box[3] <= y1 + 1


def test_a_box_in_the_padding_is_empty() -> None:
    x0, y0, x1, y1 = plan(100, 100, None, 200).box(0, 0, 40, 40)
    assert x0 == x1 and y0 == y1


@pytest.mark.parametrize("shape", [(7, 7), (7, 5), (1, 1), (14, 28), (224, 224)])
def test_a_coarse_map_is_torchs_bilinear_interpolation_on_the_view(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random(shape, np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], (224, 224), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    geometry = plan(451, 300, 256, 224)
    assert np.abs(geometry.on_view(values) - expected).max() < 1e-5
    # A picture at the resolution of the resized one shows the view pixel by pixel.
    projected, seen = geometry.project(values, 384, 256)
    assert np.abs(projected[16:240, 80:304] - expected).max() < 1e-5
    assert seen.sum() == 224 * 224 and seen[16:240, 80:304].all()


@pytest.mark.parametrize(("width", "height"), [(902, 600), (451, 300), (1023, 681)])
def test_an_enlarged_map_is_torchs_grid_sample_at_the_exact_coordinates(width: int, height: int) -> None:
    values = np.random.default_rng(2).random((224, 224), np.float32)
    geometry = plan(451, 300, 256, 224)
    x = ((torch.arange(width, dtype=torch.float64) + 0.5) * 384 / width - 80) / 224 * 2 - 1
    y = ((torch.arange(height, dtype=torch.float64) + 0.5) * 256 / height - 16) / 224 * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(values)[None, None].double(), grid, padding_mode="border", align_corners=False
    )[0, 0].numpy()
    inside = ((grid[0] >= -1) & (grid[0] < 1)).all(-1).numpy()
    projected, seen = geometry.project(values, width, height)
    assert np.array_equal(seen, inside)
    assert np.abs(projected - expected)[inside].max() < 1e-5


@pytest.mark.parametrize("size", [(97, 65), (48, 48), (224, 10)])
def test_a_reduced_map_is_torchs_antialiased_interpolation(size: tuple[int, int]) -> None:
    values = np.random.default_rng(3).random((224, 224), np.float32)
    width, height = size
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None],
        (height, width),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0, 0].numpy()
    projected, _ = plan(224, 224, None, None).project(values, width, height)
    assert np.abs(projected - expected).max() < 1e-4


def test_a_checkerboard_turns_grey_and_does_not_alias_where_the_picture_is_small() -> None:
    checkerboard = (np.indices((224, 224)).sum(0) % 2).astype(np.float32)
    projected, _ = plan(224, 224, None, None).project(checkerboard, 50, 50)
    assert np.abs(projected - 0.5).max() < 0.05


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_constant_map_stays_constant_where_it_was_seen(orientation: int) -> None:
    projected, seen = plan(451, 300, 256, 224, orientation).project(np.full((7, 7), 3.0, np.float32), 200, 170)
    assert np.abs(projected[seen] - 3.0).max() < 1e-5
    assert (projected[~seen] == 0).all()


def test_values_that_are_not_finite_count_as_nothing() -> None:
    values = np.ones((7, 7), np.float32)
    values[2, 3] = np.nan
    values[5, 1] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        projected, _ = plan(451, 300, 256, 224).project(values, 451, 300)
    assert np.isfinite(projected).all() and projected.max() <= 1.00001


def test_a_sliver_of_a_picture_is_survived() -> None:
    geometry = plan(1, 3000, 8, 8)
    assert isinstance(geometry, Geometry)
    x0, y0, x1, y1 = geometry.seen()
    assert (x0, x1) == (0, 1) and y1 - y0 == 1
    projected, seen = geometry.project(np.ones((7, 7), np.float32), 1, 100)
    assert projected.shape == seen.shape == (100, 1)
