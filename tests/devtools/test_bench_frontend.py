"""The measurement of slow clients sees when the frontend has no memory for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.bench import frontend

pytestmark = pytest.mark.server
CLIENTS = 12


@pytest.mark.parametrize(("direct", "enough"), [("1536m", True), ("48m", False)])
def test_bodies_that_stay_unfinished_are_given_up_where_direct_memory_is_short(
    tmp_path: Path, direct: str, enough: bool
) -> None:
    vmargs = f"-Xmx512m -XX:MaxDirectMemorySize={direct}"
    found = frontend.measure(frontend.large_archive(tmp_path), vmargs, CLIENTS, "half-sent bodies")
    assert (found.broken == 0) == enough and found.broken < CLIENTS
    assert found.good == 10 or not enough


def test_answers_that_are_not_read_leave_the_others_alone(tmp_path: Path) -> None:
    found = frontend.measure(frontend.large_archive(tmp_path), frontend.SHIPPED["vmargs"], CLIENTS, "unread answers")
    assert (found.broken, found.good) == (0, 10)
    assert found.megabytes > 50
