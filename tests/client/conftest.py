"""The server that the client's tests talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.scripted import Scripted, running


@pytest.fixture
def server() -> Iterator[Scripted]:
    with running() as scripted:
        yield scripted
