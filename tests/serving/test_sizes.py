"""The size of a chunk against simulated devices, on which a pass of r rows takes `fixed + per_row * r` seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy
import pytest

from heatserve.engine.sizes import SIZES
from heatserve.serving.scheduling import PREDICTIONS_PER_STEP, PROBED, Policy
from heatserve.serving.step_cost import StepCost

pytestmark = pytest.mark.fast_path

#: The seconds of the longest step of a chunk, by its rows and by the number of chunks so far.
Device = Callable[[int, int], float]


def device(fixed: float, per_row: float) -> Device:
    return lambda rows, _: fixed + per_row * rows


CPU, GPU = device(0.0, 0.02), device(0.0016, 0.00002)


def served(
    take: Device, prediction: float, chunks: int = 300, largest: int = 64, sizes: Sequence[int] = ()
) -> tuple[Policy, list[int]]:
    """The policy after so many chunks beside predictions, and the sizes of the chunks."""
    policy = Policy(PREDICTIONS_PER_STEP, sizes=sizes)
    taken = []
    for number in range(chunks):
        policy.passed(1, prediction)
        rows = policy.size(largest)
        assert 1 <= rows <= largest
        taken.append(rows)
        policy.finished(rows, 3 * rows, take(rows, number))
    return policy, taken


def best(fixed: float, per_row: float, prediction: float, largest: int = 64, sizes: Sequence[int] = ()) -> int:
    """The largest size whose step is within the limit."""
    allowed = [n for n in sizes or range(1, largest + 1) if n <= largest]
    return max(n for n in allowed if fixed + per_row * n <= PREDICTIONS_PER_STEP * prediction * 1.0001)


def test_a_pass_whose_cost_is_mostly_fixed_gets_all_the_rows_it_may_have() -> None:
    # Two rows would cost twice as much as one if cost were proportional, and that is beyond the limit.
    _, taken = served(GPU, 0.0015)
    assert 2 * GPU(1, 0) > PREDICTIONS_PER_STEP * 0.0015
    assert best(0.0016, 0.00002, 0.0015) == 64
    assert taken[20] == 64 and set(taken[20:]) == {64}


@pytest.mark.parametrize("sizes", [(), SIZES])
@pytest.mark.parametrize(
    ("fixed", "per_row", "prediction"),
    [(0.0, 0.02, 0.031), (0.0012, 0.00002, 0.0015), (0.0016, 0.00002, 0.0015), (0.002, 0.00012, 0.0015), (0, 0.001, 1)],
)
def test_the_size_is_the_largest_one_within_the_limit(
    fixed: float, per_row: float, prediction: float, sizes: Sequence[int]
) -> None:
    policy, taken = served(device(fixed, per_row), prediction, sizes=sizes)
    assert policy.size(64) == best(fixed, per_row, prediction, sizes=sizes)
    assert not sizes or set(taken) <= set(sizes)


def test_a_try_of_a_larger_size_is_rare_and_bounded() -> None:
    _, taken = served(CPU, 0.03, chunks=1000)
    limit = PREDICTIONS_PER_STEP * 0.03
    beyond = [rows for rows in taken if CPU(rows, 0) > limit * 1.0001]
    assert len(beyond) <= 1 + 1000 // PROBED
    assert all(CPU(rows, 0) <= 2 * limit for rows in beyond)


def test_the_size_follows_a_device_that_changes() -> None:
    def slower(rows: int, number: int) -> float:
        return GPU(rows, 0) if number < 300 else CPU(rows, 0) / 10

    _, taken = served(slower, 0.0015, chunks=900)
    assert taken[299] == 64 and set(taken[400:]) - set(taken[400:401]) <= {1, 2}
    _, taken = served(lambda rows, number: slower(rows, 599 - number), 0.0015, chunks=900)
    assert taken[299] == 1 and taken[-1] == 64


def test_no_pause_of_the_machine_holds_the_size_down() -> None:
    generator = random.Random(3)

    def shaken(rows: int, _: int) -> float:
        seconds = GPU(rows, 0) * generator.uniform(0.9, 1.1)
        return 100 * seconds if generator.random() < 0.05 else seconds

    _, taken = served(shaken, 0.0015, chunks=1000)
    assert sum(rows >= 32 for rows in taken[100:]) > 0.98 * 900


def test_where_one_row_alone_is_beyond_the_limit_rows_that_add_little_go_with_it() -> None:
    policy, _ = served(device(0.004, 0.00001), 0.0015)
    assert policy.size(64) == 64
    policy, _ = served(device(0.0, 0.004), 0.0015)
    assert policy.size(64) == 1


def test_the_cost_is_the_line_of_least_squares() -> None:
    generator = numpy.random.default_rng(1)
    cost = StepCost()
    rows = generator.integers(1, 65, 400)
    seconds = 0.002 + 0.0001 * rows + generator.normal(0, 0.0001, 400)
    for row, second in zip(rows, seconds):
        cost.learn(int(row), float(second))
    slope, fixed = numpy.polyfit(rows, seconds, 1)
    assert abs(cost.of(1) - (fixed + slope)) < 0.0003
    assert abs(cost.of(64) - (fixed + 64 * slope)) < 0.0005
