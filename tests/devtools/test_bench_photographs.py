"""Predictions beside large pictures: the requests, and the results from their times."""

from __future__ import annotations

from devtools.bench import photographs
from devtools.bench.tails import tail_difference
from heatserve.serving.settings import Limits


def test_the_costliest_pictures_are_ones_that_the_handler_takes_and_near_its_bound():
    found = photographs.allowed()
    assert {picture.name.split(",")[0] for picture in found} == {kind[0] for kind in photographs._CODINGS}
    bound = Limits().max_decode_ms
    assert all(picture.ms <= bound for picture in found)
    assert max(picture.ms for picture in found) >= 0.6 * bound


def test_what_a_prediction_waits_longer_is_told_in_bounds_of_one_picture():
    quiet, beside = [[0.04] * 50], [[0.54] * 50]
    assert abs(tail_difference(beside, quiet, 1.0).median - 0.5) < 1e-9
