"""After a lack of memory passes are smaller, and then slowly larger again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from heatserve.engine import Explainer, Query
from heatserve.engine.room import FIRST, LAST, Room
from tests.engine.networks import distance, pictures, small

IMAGE = pictures(1, (24, 36))


class Device:
    """A network that fails for more rows than there is room for, and notes how many it was asked for."""

    def __init__(self, explainer: Explainer, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows, self.asked = rows, list[int]()
        self._forward = explainer.model.forward
        monkeypatch.setattr(explainer.model, "forward", self._limited)

    def _limited(self, x: torch.Tensor) -> Any:
        self.asked.append(len(x))
        if len(x) > self.rows:
            raise torch.cuda.OutOfMemoryError("injected")
        return self._forward(x)


def test_the_chunk_comes_back_once_there_is_memory_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Explainer(small(), IMAGE, chunk=8)
    query = Query("smoothgrad", target=1, samples=9 * FIRST, seed=3)
    (expected,) = one.explain(IMAGE, query)
    device = Device(one, 2, monkeypatch)
    one.explain(IMAGE, Query("smoothgrad", target=1, samples=8))
    assert one.chunk == 2
    device.rows = 100
    (given,) = one.explain(IMAGE, query)
    assert one.chunk == 8 and one.fallbacks == 3
    # Doubled, not at once what it was.
    assert sorted({*device.asked}) == [1, 2, 4, 8] and device.asked.index(4, 6) < device.asked.index(8, 6)
    assert distance(given.values, expected.values) < 1e-5


def test_a_device_that_stays_small_is_tried_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Explainer(small(), IMAGE, chunk=8)
    device = Device(one, 2, monkeypatch)
    one.explain(IMAGE, Query("smoothgrad", target=1, samples=600))
    tries = [place for place, rows in enumerate(device.asked) if rows > 2]
    waits = [later - sooner for sooner, later in zip(tries[3:], tries[4:])]
    assert len(waits) >= 3 and all(later >= 1.9 * sooner for sooner, later in zip(waits, waits[1:]))
    assert one.chunk <= 4


def test_the_wait_for_the_next_try_has_an_end_and_is_forgotten_when_all_is_well() -> None:
    room = Room(8)

    def passes() -> int:
        """How many there are until a larger one is tried."""
        count, size = 0, room.size
        while room.size == size:
            room.fitted(room.size)
            count += 1
        return count

    room.short(8)
    waits = []
    for _ in range(9):
        waits.append(passes())
        assert room.size == 8
        room.short(8)
    assert waits == [16, 32, 64, 128, 256, 512, LAST, LAST, LAST]
    passes()
    for _ in range(LAST):
        room.fitted(8)
    room.short(8)
    assert passes() == FIRST


def test_small_passes_say_nothing_of_the_room_for_large_ones() -> None:
    room = Room(8)
    room.short(8)
    for _ in range(2 * FIRST):
        room.fitted(3)
    assert room.size == 4


def test_a_pass_that_was_halved_does_not_count_as_one_that_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    one, fitted = Explainer(small(), IMAGE, chunk=8), list[int]()
    monkeypatch.setattr(Room, "fitted", lambda self, rows: fitted.append(rows))
    Device(one, 4, monkeypatch)
    one.explain(IMAGE, Query("smoothgrad", target=1, samples=16))
    assert one.fallbacks == 1 and fitted == [4, 4]


def test_a_chunk_that_is_set_is_the_size_to_come_back_to() -> None:
    one = Explainer(small(), IMAGE, chunk=8)
    one.chunk = 3
    one.explain(IMAGE, Query("smoothgrad", target=1, samples=9 * FIRST))
    assert one.chunk == 3
