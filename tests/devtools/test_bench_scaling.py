"""The scaling series: slopes against closed forms, and each series once on something small."""

import io
import json
import threading

import pytest
from PIL import Image

from devtools.bench import clients, megapixels, scaling
from devtools.bench.rounds import Ratio
from devtools.bench.series import Line, Series
from tests.engine.networks import pictures, small
from tests.serving.small import small_service

LINEAR = [[3.0 + 0.5 * x for x in (1, 2, 4)], [3.1 + 0.7 * x for x in (1, 2, 4)], [2.0 + 0.6 * x for x in (1, 2, 4)]]


def test_the_exponent_of_a_power_law_is_found():
    line = Line("cost", (1, 2, 8, 400), [[k * x**0.8 for x in (1, 2, 8, 400)] for k in (1.0, 3.0, 0.2)])
    assert line.exponent.median == pytest.approx(0.8)
    assert line.exponent.low == pytest.approx(0.8) and line.exponent.high == pytest.approx(0.8)


def test_the_marginal_cost_is_the_straight_lines_slope_round_by_round():
    found = Line("cost", (1, 2, 4), LINEAR).marginal
    assert found.median == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.7))


def test_what_one_costs_in_a_crowd_is_against_one_alone():
    line = Line("cost", (1, 2, 4), LINEAR)
    assert line.each.median == pytest.approx(5.9 / 3.8 / 4)
    assert line.growth.median == pytest.approx(5.9 / 3.8)


def test_ratios_are_taken_within_the_rounds():
    found = {"a": [2.0, 30.0], "b": [4.0, 90.0], "base": [1.0, 10.0]}
    line = Line.of("cost", (1, 2), found, ["a", "b"], "base")
    assert line.ratios == [[2.0, 4.0], [3.0, 9.0]]
    assert (line + line).ratios == [[4.0, 8.0], [6.0, 18.0]]


def test_a_series_is_ready_for_json():
    detail = Series("title", "x", "y", (Line("cost", (1, 2, 4), LINEAR),)).detail("so it grows", chunk=4)
    read = json.loads(json.dumps(detail))
    assert read["sentence"] == "so it grows" and read["chunk"] == 4
    assert read["series"]["points"] == [1, 2, 4]
    assert read["series"]["lines"]["cost"]["median"] == [3.5, 4.0, 5.0]


def check(results, points):
    """One sentence for the lot, with numbers; a series that JSON can hold; ratios, not times."""
    (sentence,) = scaling.sentences(results)
    assert any(character.isdigit() for character in sentence)
    shown = json.loads(json.dumps(results[0].detail))["series"]
    assert shown["points"] == [*points]
    assert all(result.unit == "×" and result.rounds >= 2 for result in results)
    assert all(len(line["median"]) == len(points) for line in shown["lines"].values())
    return sentence


def test_batches_samples_and_targets_are_measured_on_any_network():
    shares = []
    tiny = {"build": small, "inputs": pictures}
    found = scaling.over_batches(0, 2, shares.append, sizes=(1, 3), **tiny)
    assert "N^" in check(found, (1, 3))
    assert shares[-1] == 1
    assert "n^" in check(scaling.over_samples(0, 2, shares.append, counts=(1, 2, 5), **tiny), (1, 2, 5))
    found = scaling.over_targets(0, 2, shares.append, counts=(1, 2, 6), inner="trunk.0", **tiny)
    assert "further target" in check(found, (1, 2, 6))
    assert "trunk.0" in found[1].what


@pytest.mark.parametrize("size", [0.1, 2.0])
def test_a_synthetic_photograph_has_the_pixels_and_bytes_of_one(size):
    data = megapixels.photograph(size)
    image = Image.open(io.BytesIO(data))
    width, height = image.size
    assert width * height == pytest.approx(1e6 * size, rel=0.01)
    assert width / height == pytest.approx(1.5, rel=0.01)
    assert 0.08 < len(data) / (width * height) < 1.0
    assert data == megapixels.photograph(size)


def test_what_surrounds_the_model_is_measured_by_reading_and_writing(tmp_path):
    found = megapixels.of_service(small_service(tmp_path), 0, 2, lambda share: None, (0.02, 0.1))
    assert "megapixel" in check(found, (0.02, 0.1))
    lines = found[0].detail["series"]["lines"]
    assert [*lines] == ["both", "decode and preprocess", "render and encode"]
    assert found[0].detail["jpeg_kb"].keys() == {"0.02 MP", "0.1 MP"}


def test_a_photograph_that_is_refused_is_no_measurement(tmp_path):
    errand = megapixels.Errand(small_service(tmp_path), b"not a picture")
    errand.read()
    with pytest.raises(RuntimeError, match="415"):
        errand.write()


def test_a_cost_that_noise_hides_is_not_told_as_a_figure():
    assert scaling._share(Ratio(0.02, 0.01, 0.03, 9)) == "2 % of a forward pass"
    assert scaling._share(Ratio(0.01, -0.01, 0.03, 9)) == "no more than 3 % of a forward pass"
    assert scaling._share(Ratio(-0.02, -0.03, -0.01, 9)) == "nothing that can be told"


def test_the_server_is_asked_by_so_many_clients_at_once():
    together, most, lock = 0, 0, threading.Lock()
    barrier = threading.Event()

    def ask():
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        barrier.wait(0.002)
        with lock:
            together -= 1

    found = clients.of_asking(ask, 0, 2, lambda share: None, (1, 4))
    assert "4 clients" in check(found, (1, 4))
    assert most == 4
    throughput, latency = found
    assert throughput.value > 0 and latency.value > 0
