"""The policy with a clock of its own: nobody starves, turns are fair, deadlines count, steps stay short."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatserve.serving.scheduling import PATIENCE, PREDICTIONS_PER_STEP, TURNS, Policy


@dataclass(eq=False)
class Someone:
    deadline: float = math.inf
    served: float = 0.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def policy() -> tuple[Policy, Clock]:
    clock = Clock()
    return Policy(PREDICTIONS_PER_STEP, clock), clock


def test_predictions_go_first() -> None:
    one, _ = policy()
    assert not one.chunk_next(passes=True, chunks=True)
    assert one.chunk_next(passes=False, chunks=True)
    assert not one.chunk_next(passes=True, chunks=False)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.001, 2.0)), min_size=20, max_size=60), st.floats(0.01, 0.5))
def test_saturating_predictions_starve_no_chunk(passes: list[tuple[int, float]], step: float) -> None:
    one, _ = policy()
    since = 0
    for rows, seconds in passes:
        while one.chunk_next(passes=True, chunks=True):
            one.stepped(step)
            since = 0
        one.passed(rows, seconds)
        since += 1
        assert since <= PATIENCE


def test_explanations_get_a_quarter_of_the_time_beside_long_passes() -> None:
    one, _ = policy()
    passes = chunks = 0.0
    for _ in range(400):
        if one.chunk_next(passes=True, chunks=True):
            one.stepped(0.05)
            chunks += 0.05
        else:
            one.passed(8, 0.4)
            passes += 0.4
    assert 0.22 <= chunks / (chunks + passes) <= 0.28


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), min_size=1, max_size=20))
def test_the_earliest_deadline_goes_first_then_the_least_served(people: list[tuple[float, int]]) -> None:
    one, _ = policy()
    claims = [Someone(deadline, served) for deadline, served in people]
    first = one.order(claims)[0]
    assert all((first.deadline, first.served) <= (other.deadline, other.served) for other in claims)


@given(st.integers(1, 12), st.integers(0, 12))
def test_everybody_is_served_however_many_have_deadlines(patient: int, hurried: int) -> None:
    one, _ = policy()
    claims = [Someone() for _ in range(patient)] + [Someone(deadline=1.0) for _ in range(hurried)]
    for _ in range(TURNS * 4 * len(claims) + TURNS):
        one.order(claims)[0].served += 1
        one.finished(1, 3, 0.01)
    assert all(claim.served > 0 for claim in claims)


@given(st.integers(2, 10), st.integers(5, 40))
def test_turns_are_even_and_a_newcomer_does_not_hold_up_the_others(count: int, turns: int) -> None:
    one, _ = policy()
    claims = [Someone() for _ in range(count)]
    for _ in range(turns * count):
        one.order(claims)[0].served += 1
        one.finished(1, 3, 0.01)
    assert max(c.served for c in claims) - min(c.served for c in claims) <= 1
    newcomer = Someone(served=one.entry(claims))
    claims.append(newcomer)
    before = newcomer.served
    for _ in range(len(claims)):
        one.order(claims)[0].served += 1
        one.finished(1, 3, 0.01)
    assert newcomer.served - before <= 2


@pytest.mark.fast_path
@given(st.floats(0.005, 0.2), st.floats(0.005, 0.2), st.integers(1, 64))
def test_a_step_becomes_no_longer_than_two_predictions_where_a_row_fits(
    prediction: float, row: float, largest: int
) -> None:
    one, _ = policy()
    one.passed(1, prediction)
    for _ in range(300):
        rows = one.size(largest)
        assert 1 <= rows <= largest
        one.finished(rows, 3 * rows, rows * row)
    rows = one.size(largest)
    assert rows == 1 or rows * row <= PREDICTIONS_PER_STEP * prediction * 1.001
    # And no shorter than it needs to be.
    assert rows == largest or (rows + 1) * row > PREDICTIONS_PER_STEP * prediction * 0.999


def test_where_nobody_comes_in_between_the_chunk_is_as_large_as_it_may_be() -> None:
    one = Policy(math.inf)
    one.passed(1, 0.001)
    one.finished(8, 24, 5.0)
    assert one.size(8) == 8


def test_the_pace_is_the_walls_clock_with_what_predictions_took_in_between() -> None:
    one, clock = policy()
    for _ in range(60):
        one.chunk_next(passes=True, chunks=True)
        clock.now += 3.0
        one.finished(1, 3, 0.1)
    assert abs(one.seconds_per_work - 1.0) < 0.01


def test_a_costly_picture_is_paid_back_before_the_next_one() -> None:
    one, _ = policy()
    assert one.chunk_next(passes=False, chunks=True)
    one.decoded(0.5)
    between = 0.0
    while not one.chunk_next(passes=True, chunks=True):
        one.passed(1, 0.03)
        between += 0.03
    assert 1.4 <= between <= 1.7


def test_costly_pictures_that_nobody_waited_beside_leave_no_debt() -> None:
    one, _ = policy()
    for _ in range(100):
        assert one.chunk_next(passes=False, chunks=True)
        one.decoded(0.5)
    passes = 0
    while not one.chunk_next(passes=True, chunks=True):
        one.passed(1, 0.03)
        passes += 1
    assert passes <= 60


def test_where_nobody_can_come_in_between_no_picture_is_costly() -> None:
    assert not Policy(math.inf).costly(1e6)
    assert Policy().costly(0.5) and not Policy().costly(0.01)


def test_what_a_pool_can_do_is_large_from_one_length_on_however_slow_the_network_is() -> None:
    one, _ = policy()
    assert one.large(0.051) and not one.large(0.049)
    one.passed(1, 10.0)
    assert one.large(0.051) and not one.costly(0.051)
    assert not Policy(math.inf).large(1e6)


def test_clients_cannot_buy_patience_by_pictures_that_take_as_long_as_it() -> None:
    one, _ = policy()
    for _ in range(50):
        one.passed(8, 8 * 0.03)
    before = one.patience
    for _ in range(200):
        one.passed(8, 8 * 0.03, decoding=8 * 0.95 * one.patience)
    assert one.patience <= 1.01 * before


def test_costly_pictures_with_deadlines_leave_others_their_turn() -> None:
    one, _ = policy()
    patient, served = Someone(), 0
    for _ in range(100):
        first = one.order([patient, Someone(deadline=0.0), Someone(deadline=1.0)])[0]
        if first is patient:
            served += 1
        one.decoded(0.3)
    assert served >= 100 // TURNS
