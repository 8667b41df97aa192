"""Pictures that are decoded and wait for their first pass count against the bound on waiting bytes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from heatserve.serving.states import Admitted, Decoded, Reading
from heatserve.serving.waiting import waiting_bytes
from tests.serving.small import small_service
from tests.serving.test_service import explained


@pytest.mark.parametrize("taken", [False, True])
def test_decoded_pictures_that_wait_are_counted(tmp_path: Path, taken: bool) -> None:
    loop = small_service(tmp_path, {"continuousBatching": True}).loop
    row = explained("a")
    item = loop.admit(row).items[0]
    state = item.state
    assert isinstance(state, Admitted) and waiting_bytes(item) == 0
    reading = loop._admission.decoded(replace(state, opened=None))
    assert isinstance(reading.found, Decoded)
    pixels = reading.found.image.numel() * 4
    if reading.found.photograph is not None and reading.found.photograph.image is not None:
        pixels += len(reading.found.photograph.image.tobytes())
    if taken:
        item.state = reading.found
    else:
        item.reading = Future[Reading]()
        assert waiting_bytes(item) == 0
        item.reading.set_result(reading)
        pixels += 3 * state.size[0] * state.size[1]
    assert waiting_bytes(item) == pixels / 4
