"""The states of an item: each is a value that nothing changes, and rendering leaves an item as it was."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from heatserve.serving.errors import Refusal
from heatserve.serving.items import Item, OpenRow
from heatserve.serving.loop import Loop
from heatserve.serving.service import Row, Service
from heatserve.serving.states import Admitted, Decoded, Described, Finished, Refused, State, UnderWay
from tests.serving.small import picture, small_service

HEADERS = {"Content-Length": "1", "explain": "True"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return small_service(tmp_path_factory.mktemp("archive"), {"continuousBatching": True})


def opened(service: Service, body: Any, **options: Any) -> OpenRow:
    """A new row, the only one of the loop."""
    service.loop.begin([])
    headers = {f"X-Explain-{name.replace('_', '-')}": str(value) for name, value in options.items()}
    return service.loop.admit(Row("one", {"body": body}, {**HEADERS, **headers}))


def states(loop: Loop, row: OpenRow) -> list[State]:
    """The states that the one item of a row goes through, without repeats."""
    found = [row.items[0].state]
    while loop.busy:
        loop.step()
        if row.items[0].state is not found[-1]:
            found.append(row.items[0].state)
    return found


def test_an_item_goes_from_admitted_to_finished(service: Service) -> None:
    short = states(service.loop, opened(service, picture(), method="gradcam"))
    assert [type(state) for state in short] == [Admitted, Finished]
    # The first pass of a gradient of the input is a chunk of its own, so that its picture is decoded a step before.
    long = states(service.loop, opened(service, picture(), method="smoothgrad", samples=3, target="top2"))
    assert [type(state) for state in long][:2] == [Admitted, UnderWay] and isinstance(long[-1], Finished)


def test_a_state_that_an_item_had_is_not_changed_by_the_next(service: Service) -> None:
    loop = service.loop
    row = opened(service, picture(), method="smoothgrad", samples=3, target="top2")
    loop.step()
    before = row.items[0].state
    assert isinstance(before, UnderWay) and len(before.jobs) == 2
    jobs, attributions = [*before.jobs], [*before.attributions]
    while loop.busy:
        loop.step()
    assert isinstance(row.items[0].state, Finished)
    assert [*before.jobs] == jobs and [*before.attributions] == attributions == [None, None]


def test_every_state_is_frozen(service: Service) -> None:
    row = opened(service, picture(), method="gradient", samples=3)
    found: list[State] = [*states(service.loop, row), Refused(Refusal(400, "no"))]
    service.loop.begin([])
    described = service.loop.admit(Row("two", {}, {**HEADERS, "url_path": "describe"}))
    found.append(described.items[0].state)
    assert {type(state) for state in found} >= {Admitted, UnderWay, Finished, Refused, Described}
    for state in found:
        for each in fields(state):
            with pytest.raises(FrozenInstanceError):
                setattr(state, each.name, None)


@pytest.mark.parametrize("method", ["gradcam", "smoothgrad"])
@pytest.mark.parametrize("output", ["json", "png", "npy"])
def test_rendering_leaves_an_item_as_it_was(service: Service, method: str, output: str) -> None:
    row = opened(service, picture(), method=method, output=output)
    states(service.loop, row)
    (item,) = row.items
    outcome = item.settled()
    state, seconds, lines = item.state, dict(item.seconds), item.lines
    first = service.responder.respond(row.protocol, [outcome], 0)
    assert first.answer.status == 200 and first.facts[0].seconds["render"] > 0
    assert item.state is state and item.seconds == seconds == outcome.seconds and item.lines == lines


def test_an_answer_that_cannot_be_rendered_leaves_its_item_finished(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = opened(service, picture())
    states(service.loop, row)
    monkeypatch.setattr(type(service.responder.report), "about", lambda *_: 1 / 0)
    rendered = service.responder.respond(row.protocol, [row.items[0].settled()], 0)
    assert rendered.answer.status == 500 and rendered.facts[0].refusal is not None
    assert isinstance(row.items[0].state, Finished)


def test_an_item_has_an_outcome_when_it_is_done_and_an_estimate_while_it_is_under_way(service: Service) -> None:
    row = opened(service, picture(), method="smoothgrad", samples=40)
    (item,) = row.items
    with pytest.raises(ValueError, match="not done"):
        item.settled()
    with pytest.raises(ValueError, match="not under way"):
        item.presented()
    while service.loop.busy and not (isinstance(item.state, UnderWay) and item.state.presentable):
        service.loop.step()
    shown = item.presented()
    assert 2 <= shown.attributions[0].samples_used < 40 and isinstance(item.state, UnderWay)
    while service.loop.busy:
        service.loop.step()
    with pytest.raises(ValueError, match="not under way"):
        item.presented()
    assert item.settled().request is row.items[0].state.request


def test_a_refused_item_keeps_its_request_and_nothing_else(service: Service) -> None:
    row = opened(service, picture(), method="smoothgrad", samples=40)
    (item,) = row.items
    service.loop.step()
    request = item.state.request
    item.refuse(Refusal(503, "later"))
    state = item.settled()
    assert isinstance(state, Refused) and state.request is request and state.refusal.code == 503
    assert not service.loop.busy and not item.long and not item.work_left


def test_items_that_are_alike_are_not_equal() -> None:
    refusal = Refusal(400, "no")
    assert Item(Refused(refusal)) != Item(Refused(refusal))


def test_a_decoded_picture_waits_for_its_pass(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    row = opened(service, picture())
    monkeypatch.setattr(type(service.loop._passes), "forward", lambda *_: None)
    service.loop.step()
    state = row.items[0].state
    assert isinstance(state, Decoded) and state.image.shape == (3, 32, 32) and state.size == (60, 40)
    with pytest.raises(FrozenInstanceError):
        state.costly = True  # type: ignore[misc]
