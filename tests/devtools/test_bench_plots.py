"""The pictures of results: there, small, and showing what they are given."""

from io import BytesIO

import pytest
from PIL import Image

from devtools.bench import plots
from devtools.bench.results import Result
from devtools.bench.series import Line, Series

ROWS = [[1.0, 2.1, 8.5], [1.0, 1.9, 7.5]]


def result(x="samples n", logarithmic=True, lines=1):
    series = Series(
        "SmoothGrad against its samples",
        x,
        "cost in forward passes",
        tuple(Line(f"line {number}", (1, 2, 8), ROWS) for number in range(lines)),
        logarithmic,
        1.0 if logarithmic else None,
    )
    return Result("x", 1.0, detail=series.detail("Each further sample costs 1.05 forward passes."))


def opened(path):
    assert path.stat().st_size < 150_000
    return Image.open(BytesIO(path.read_bytes())).convert("RGB")


def colours(image):
    return {colour for _, colour in image.getcolors(image.width * image.height)}


def close(colour, name):
    wanted = tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))
    return max(abs(one - other) for one, other in zip(colour, wanted)) < 12


def test_every_series_becomes_a_picture_named_by_its_axis(tmp_path):
    results = [result(), Result("no series", 1.0), result("targets", logarithmic=False, lines=2)]
    paths = plots.scaling(results, tmp_path / "new", "day-machine")
    assert [path.name for path in paths] == ["day-machine-samples-n.png", "day-machine-targets.png"]
    for path in paths:
        image = opened(path)
        assert 600 < image.width < 1000 and 300 < image.height < 700
    assert any(close(colour, plots.COLOURS[1]) for colour in colours(opened(paths[1])))


def test_a_slope_that_noise_makes_negative_can_be_drawn(tmp_path):
    line = Line("cost", (1, 2, 8), [[1.0, 0.4, 0.9], [0.9, 1.4, 0.7]])
    series = Series("title", "targets", "cost", (line,), logarithmic=False)
    (path,) = plots.scaling([Result("x", -0.1, detail=series.detail("."))], tmp_path, "x")
    opened(path)


@pytest.mark.parametrize("count", [1, 40])
def test_a_chart_has_a_row_for_each_ratio_and_stays_small(tmp_path, count):
    rows = [
        Result(f"Grad-CAM of network number {n}", 1.01 + n, low=1.0, high=2.0 + n, limit=1.05) for n in range(count)
    ]
    rows += [Result("an answer's size", 33.0, "kB")]
    image = opened(plots.ratios(rows, tmp_path / "chart.png", "Explanations"))
    assert image.height == pytest.approx(plots.DPI * (1.3 + 0.27 * count), abs=2)


def test_a_chart_tells_met_from_missed_by_colour(tmp_path):
    met = Result("met", 1.0, low=0.99, high=1.01, limit=1.05)
    missed = Result("missed", 1.2, low=1.19, high=1.21, limit=1.05)
    seen = colours(opened(plots.ratios([met, missed], tmp_path / "both.png", "Explanations")))
    assert any(close(colour, plots.MET["yes"]) for colour in seen)
    assert any(close(colour, plots.MET["no"]) for colour in seen)
    seen = colours(opened(plots.ratios([met], tmp_path / "one.png", "Explanations")))
    assert not any(close(colour, plots.MET["no"]) for colour in seen)


def test_a_chart_may_take_those_alone_that_are_against_one_thing(tmp_path):
    rows = [Result("Grad-CAM, against Captum", 0.5), Result("memory", 1.0), Result("CAM, against Captum", 0.4)]
    all_of_them = opened(plots.ratios(rows, tmp_path / "all.png", "x"))
    image = opened(plots.ratios(rows, tmp_path / "captum.png", "x", "Captum"))
    assert all_of_them.height - image.height == pytest.approx(0.27 * plots.DPI, abs=2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.00"), (0.984, "0.98"), (0.0041, "0.0041"), (80.8, "80.8"), (158.2, "158"), (4321, "4321")],
)
def test_numbers_are_written_as_people_do(value, text):
    assert plots._digits(value) == text
