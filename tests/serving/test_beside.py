"""Pictures and answers beside the network: who waits for whom, and that every answer is that of one thread."""

from __future__ import annotations

import base64
import io
import json
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heatserve.serving import admission, passes, rendering, states, tasks
from heatserve.serving.answers import Answer, body_bytes
from heatserve.serving.items import Item
from heatserve.serving.responder import Responder
from heatserve.serving.service import Reply, Row, Service
from heatserve.serving.states import Admitted, UnderWay
from tests.serving.small import picture, small_service
from tests.serving.test_service import ILLEGAL, explained, predicted

pytestmark = pytest.mark.fast_path

#: The width of a picture that takes long to decode, by a promise that its header seems to make.
LARGE = 61


def service_of(folder: Path, threads: int, continuous: bool = True, **limits: Any) -> Service:
    return small_service(folder, {"continuousBatching": continuous, "explain": {"picture_threads": threads, **limits}})


class Large:
    """Pictures of the width LARGE: each waits until it is told to go on. begun: how many have begun."""

    def __init__(self) -> None:
        self.open, self.begun, self.names = threading.Event(), threading.Semaphore(0), list[str]()
        self.error: BaseException | None = None


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[Large]:
    opened, decode, made = admission.opened, admission.decode, Large()

    def promised(data: bytes, max_pixels: int) -> Any:
        file = opened(data, max_pixels)
        header = file.header
        return replace(file, header=replace(header, decode_ms=390.0)) if header.width == LARGE else file

    def slow(data: bytes, *given: Any) -> Any:
        found = decode(data, *given)
        if found.width == LARGE:
            made.names.append(threading.current_thread().name)
            made.begun.release()
            assert made.open.wait(30)
            if made.error is not None:
                raise made.error
        return found

    monkeypatch.setattr(admission, "opened", promised)
    monkeypatch.setattr(admission, "decode", slow)
    yield made
    made.open.set()


def large_row(name: str, seed: int = 0, **options: Any) -> Row:
    row = explained(name, seed, **options) if options else predicted(name, seed)
    return Row(name, {"body": picture(LARGE, seed=seed)}, row.headers)


def until(service: Service, rows: Sequence[Row], enough: Callable[[Reply], bool], calls: int = 3000) -> Reply:
    """The joined replies up to the first one that is enough. Rows that are answered do not come again."""
    whole, left = service.call(rows), list(rows)
    reply = whole
    left = reply.unanswered(left)
    while not enough(whole):
        assert reply.left and calls, f"left: {[row.id for row in left]}"
        reply, calls = service.call(left), calls - 1
        left = reply.unanswered(left)
        whole = whole.then(reply)
    return whole


def all_of(service: Service, rows: Sequence[Row]) -> Reply:
    whole = until(service, rows, lambda reply: not reply.unanswered(rows))
    assert not whole.left and not service.loop.rows
    return whole


def statuses(reply: Reply) -> dict[str, int]:
    return {name: answer.status for name, answer in reply.answers.items()}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_prediction_is_answered_while_large_pictures_are_decoded(tmp_path: Path, large: Large, threads: int) -> None:
    service = service_of(tmp_path, threads)
    rows = [large_row(f"large{index}", index) for index in range(4)]
    assert not service.call(rows).answers and large.begun.acquire(timeout=20)
    for index in range(3):
        quick = predicted(f"p{index}", index)
        assert statuses(service.call([*rows, quick])) == {quick.id: 200}
    assert len(large.names) <= max(1, threads // 2)
    large.open.set()
    assert set(statuses(all_of(service, rows)).values()) == {200}
    assert all(name.startswith("heatserve-picture") for name in large.names)


def test_a_slow_network_does_not_make_its_clients_wait_for_large_pictures_too(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    service.loop._policy.passed(1, 10.0)
    assert service.loop._policy.patience > 1
    rows = [large_row("large"), predicted("p")]
    assert statuses(service.call(rows)) == {"p": 200}
    large.open.set()
    assert statuses(all_of(service, rows[:1])) == {"large": 200}


def test_without_a_pool_it_waits(tmp_path: Path, large: Large) -> None:
    large.open.set()
    service = service_of(tmp_path, 0)
    row = large_row("large")
    assert not service.call([row]).answers and large.names == [threading.current_thread().name]
    assert statuses(all_of(service, [row])) == {"large": 200}


def test_an_explanation_goes_on_while_a_large_picture_is_decoded(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    rows = [large_row("large"), explained("smooth", method="smoothgrad", samples=30)]
    found = until(service, rows, lambda reply: "smooth" in reply.answers)
    assert statuses(found) == {"smooth": 200} and found.left
    large.open.set()
    assert statuses(all_of(service, rows[:1])) == {"large": 200}


def test_a_call_with_nothing_to_do_waits_a_little_and_does_not_spin(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    row = large_row("large")
    service.call([row])
    assert large.begun.acquire(timeout=20)
    started, used = time.monotonic(), time.thread_time()
    for _ in range(5):
        reply = service.call([row])
        assert reply.left and not reply.answers
    assert 0.1 <= time.monotonic() - started < 10 and time.thread_time() - used < 0.1
    large.open.set()
    assert statuses(all_of(service, [row])) == {"large": 200}


def test_one_client_is_served_by_the_networks_thread_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(tmp_path, 2)
    monkeypatch.setattr(type(service.writer._pool), "submit", lambda *_: pytest.fail("was handed over"))
    assert statuses(service.call([predicted("p")])) == {"p": 200}
    assert statuses(service.call([explained("e", output="png")])) == {"e": 200}
    assert statuses(all_of(service, [explained("s", method="smoothgrad", samples=5)])) == {"s": 200}


def test_who_hangs_up_is_not_decoded(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 1)
    rows = [large_row(f"large{index}", index) for index in range(3)]
    service.call(rows)
    assert large.begun.acquire(timeout=20)
    begun, waits = (service.loop.rows[name].items[0].reading for name in ("large0", "large1"))
    assert begun is not None and waits is not None
    reply = service.call([rows[2]])
    assert reply.facts.given_up == 2 and [*service.loop.rows] == ["large2"] and waits.cancelled()
    large.open.set()
    assert statuses(all_of(service, [rows[2]])) == {"large2": 200}
    assert begun.done() and len(large.names) == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("a bug"), 500), (MemoryError(), 507), (SystemExit(1), 500), (RuntimeError("out of memory"), None)],
)
def test_a_fault_in_the_pool_refuses_its_own_item(
    tmp_path: Path, large: Large, error: BaseException, status: int | None
) -> None:
    service = service_of(tmp_path, 2)
    large.error = error
    large.open.set()
    found = statuses(all_of(service, [predicted("before"), large_row("bad"), predicted("behind", 1)]))
    assert found["before"] == found["behind"] == 200 and found["bad"] == (status or found["bad"]) >= 500
    assert statuses(all_of(service, [predicted("next")])) == {"next": 200}


def test_a_device_that_is_lost_in_the_pool_ends_all_rows(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    large.error = RuntimeError(ILLEGAL)
    rows = [large_row("bad"), explained("long", method="smoothgrad", samples=200)]
    service.call(rows)
    large.open.set()
    found = until(service, rows, lambda reply: reply.lost)
    assert statuses(found) == {"bad": 500, "long": 500} and not found.left


def test_a_picture_that_cannot_be_decoded_is_refused_from_the_pool(tmp_path: Path) -> None:
    service = service_of(tmp_path, 2, continuous=False)
    whole = picture()
    rows = [
        Row(f"cut{index}", {"body": whole[: len(whole) - 40 * index]}, predicted("p").headers) for index in range(6)
    ]
    assert statuses(service.call(rows)) == {f"cut{index}": 415 if index else 200 for index in range(6)}


def test_limits_count_what_the_pool_decodes(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    rows = [large_row(f"large{index}", index) for index in range(14)]
    first = service.call(rows)
    assert statuses(first) == {"large12": 503, "large13": 503}
    assert first.answers["large12"].headers["Retry-After"] == "5"
    large.open.set()
    assert set(statuses(all_of(service, rows[:12])).values()) == {200}


def test_pictures_that_promise_to_fill_the_memory_are_decoded_one_at_a_time(
    tmp_path: Path, large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = admission.opened

    def promised(data: bytes, max_pixels: int) -> Any:
        file = opened(data, max_pixels)
        return replace(file, header=replace(file.header, peak_bytes=tasks.MOST_BYTES))

    monkeypatch.setattr(admission, "opened", promised)
    service = service_of(tmp_path, 8)
    rows = [large_row(f"l{index}", index) for index in range(3)]
    service.call(rows)
    assert large.begun.acquire(timeout=20) and not large.begun.acquire(timeout=0.2)
    large.open.set()
    assert set(statuses(all_of(service, rows)).values()) == {200}


def test_a_deadline_counts_while_its_picture_is_decoded(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    row = large_row("late", method="smoothgrad", samples=200, deadline_ms=50)
    service.call([row])
    time.sleep(0.06)
    large.open.set()
    answer = all_of(service, [row]).answers["late"]
    quality = json.loads(bytes(answer.body))["explanations"][0]["quality"]
    assert 2 <= quality["samples_used"] < 200 and quality["converged"] is False


def test_the_time_of_decoding_is_that_of_the_work(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    row = large_row("large")
    service.call([row])
    time.sleep(0.1)
    large.open.set()
    found = all_of(service, [row]).facts.answered["large"][0].seconds["decode"]
    assert 0.1 <= found < 10


def on_an_accelerator(service: Service) -> None:
    """As if the network did not share the cores with the pool: then the network goes first."""
    service.loop._shares_cores = False


def under_way(service: Service, row: Row) -> None:
    """Calls until the one row has passes to come."""
    service.call([row])
    while not isinstance(service.loop.rows[row.id].items[0].state, UnderWay):
        service.call([row])


def test_beside_a_device_a_chunk_is_launched_before_newcomers_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(tmp_path, 2)
    on_an_accelerator(service)
    long = explained("long", method="smoothgrad", samples=200)
    under_way(service, long)
    decode, gate = admission.decode, threading.Event()

    def slow(*given: Any) -> Any:
        assert gate.wait(30)
        return decode(*given)

    monkeypatch.setattr(admission, "decode", slow)
    new = [predicted("p0"), predicted("p1", 1)]
    before = service.loop.rows["long"].items[0].served
    for _ in range(5):
        assert not service.call([long, *new]).answers
    assert service.loop.rows["long"].items[0].served > before
    gate.set()
    assert statuses(until(service, [long, *new], lambda reply: {"p0", "p1"} <= set(reply.answers))) == {
        "p0": 200,
        "p1": 200,
    }


def test_beside_a_device_an_answer_is_written_while_the_next_chunk_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(tmp_path, 2)
    on_an_accelerator(service)
    respond, gate, names = Responder.respond, threading.Event(), []

    def slow(*given: Any) -> Any:
        names.append(threading.current_thread().name)
        assert gate.wait(30)
        return respond(*given)

    monkeypatch.setattr(Responder, "respond", slow)
    rows = [explained("map", output="png"), explained("long", 1, method="smoothgrad", samples=200)]
    under_way(service, rows[1])
    while not names:
        assert not service.call(rows).answers
    before = service.loop.rows["long"].items[0].served
    for _ in range(10):
        assert not service.call(rows).answers
    assert service.loop.rows["long"].items[0].served > before and len(names) == 1
    gate.set()
    assert statuses(until(service, rows, lambda reply: "map" in reply.answers)) == {"map": 200}
    assert statuses(all_of(service, rows[1:])) == {"long": 200} and names[0].startswith("heatserve-picture")


def test_estimates_are_on_the_host_before_another_thread_draws_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, moved, drawn = service_of(tmp_path, 2), list[Any](), list[Any]()
    on_an_accelerator(service)
    on_host, view = states.on_host, rendering.view

    def moving(*given: Any) -> Any:
        assert threading.current_thread() is threading.main_thread()
        found = on_host(*given)
        moved.extend(found[0])
        return found

    def drawing(geometry: Any, attribution: Any) -> Any:
        drawn.append(attribution)
        return view(geometry, attribution)

    for module in (states, passes):
        monkeypatch.setattr(module, "on_host", moving)
    monkeypatch.setattr(rendering, "view", drawing)
    stream = explained("stream", method="smoothgrad", samples=60, stream="true")
    overdue = explained("overdue", 1, method="smoothgrad", samples=200, deadline_ms=1)
    assert statuses(all_of(service, [stream, overdue])) == {"stream": 200, "overdue": 200}
    assert len(drawn) >= 3 and all(any(each is one for one in moved) for each in drawn)


@pytest.mark.parametrize("apart", [False, True])
def test_a_streams_lines_come_in_their_order_before_its_last(tmp_path: Path, apart: bool) -> None:
    service = service_of(tmp_path, 2)
    if apart:
        on_an_accelerator(service)
    line = Responder.line

    def slow(*given: Any) -> Any:
        time.sleep(0.02)
        return line(*given)

    rows = [explained(f"s{index}", index, method="smoothgrad", samples=60, stream="true") for index in range(3)]
    sent: dict[str, list[Answer]] = {row.id: [] for row in rows}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Responder, "line", slow)
        left: list[Row] = rows
        while left:
            reply = service.call(left)
            for name, answer in reply.answers.items():
                sent[name].append(answer)
            left = reply.unanswered(left)
            assert reply.left is bool(left)
    for lines in sent.values():
        assert 2 <= len(lines) <= 4 and [each.more for each in lines] == [True] * (len(lines) - 1) + [False]
        used = [json.loads(bytes(each.body))["explanations"][0]["quality"]["samples_used"] for each in lines]
        assert used == sorted(set(used)) and used[-1] == 60


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1)])
def test_a_line_that_cannot_be_written_ends_its_own_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    service = service_of(tmp_path, 2)
    on_an_accelerator(service)
    line = Responder._rendering

    def fails(self: Responder, finished: Any, *given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and finished.request.stream:
            raise error
        return line(self, finished, *given)

    monkeypatch.setattr(Responder, "_rendering", fails)
    rows = [explained("live", method="smoothgrad", samples=40, stream="true"), explained("other", 1)]
    assert statuses(all_of(service, rows)) == {"live": 500, "other": 200}


def test_an_answer_that_cannot_be_written_in_the_pool_is_a_500(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(tmp_path, 2)
    on_an_accelerator(service)
    respond = Responder.respond

    def fails(*given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit(1)
        return respond(*given)

    monkeypatch.setattr(Responder, "respond", fails)
    rows = [explained("map"), explained("long", 1, method="smoothgrad", samples=200)]
    under_way(service, rows[1])
    assert statuses(until(service, rows, lambda reply: bool(reply.answers))) == {"map": 500}


def _mixed(count: int) -> list[Row]:
    """Rows of all kinds, each with a picture of its own."""
    asked: list[dict[str, Any] | None] = [
        None,
        {"method": "gradcam", "output": "npy"},
        {"method": "cam", "output": "png", "target": 2},
        {"method": "gradient", "output": "npy", "target": "top2"},
        {"method": "smoothgrad", "samples": 6, "output": "npy"},
        {"method": "gradcam", "overlay": "true"},
        {"method": "lime"},
        {"method": "smoothgrad", "samples": 40, "stream": "true"},
    ]
    rows = []
    for index in range(count):
        options = asked[index % len(asked)]
        name = f"r{index}"
        given = predicted(name, index) if options is None else explained(name, index, **options)
        form = ("PNG", "JPEG", "WEBP", "GIF")[index % 4]
        size = 40 + 17 * (index % 5), 36 + 11 * (index % 7)
        rows.append(Row(name, {"body": picture(*size, seed=index, form=form)}, given.headers))
    images = [base64.b64encode(picture(seed=100 + index)).decode() for index in range(5)]
    rows.append(Row("many", {"body": {"instances": images}}, explained("many").headers))
    return rows


def _numbers(body: bytes) -> Any:
    """The numbers of an answer; times are left out."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stripped(each) for key, each in value.items() if key != "timing_ms"}
        return [stripped(each) for each in value] if isinstance(value, list) else value

    try:
        return stripped(json.loads(body))
    except ValueError:
        return body


def _assert_alike(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            _assert_alike(left, right)
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    elif isinstance(one, bytes) and one.startswith(b"\x93NUMPY"):
        ours, theirs = np.load(io.BytesIO(one)), np.load(io.BytesIO(other))
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    elif isinstance(one, str) and one.startswith("iVBOR"):
        _assert_alike(base64.b64decode(one), base64.b64decode(other))
    elif isinstance(one, bytes) and one.startswith(b"\x89PNG"):
        # Other rows in a pass change the last digits of a map, and so a grey level here and there by one.
        ours, theirs = (np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), np.int16) for each in (one, other))
        assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() <= 0.05
    else:
        same = one == other
        assert same, f"{one!r:.200} {other!r:.200}"


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("apart", [False, True])
def test_the_answers_of_many_threads_are_those_of_one(
    tmp_path_factory: pytest.TempPathFactory, threads: int, continuous: bool, apart: bool
) -> None:
    rows = _mixed(40)
    one = all_of(service_of(tmp_path_factory.mktemp("one"), 0, continuous), rows)
    service = service_of(tmp_path_factory.mktemp("many"), threads, continuous)
    if apart:
        on_an_accelerator(service)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        many = all_of(service, rows)
    finally:
        sys.setswitchinterval(interval)
    assert statuses(many) == statuses(one) and {200, 400} <= set(statuses(one).values())
    for row in rows:
        # A stream's last line is the whole answer, however many there were before.
        _assert_alike(_numbers(body_bytes(many.answers[row.id])), _numbers(body_bytes(one.answers[row.id])))
        assert many.answers[row.id].content_type == one.answers[row.id].content_type


def test_in_the_ordinary_mode_all_pictures_of_a_batch_share_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(tmp_path, 4, continuous=False)
    forward, sizes = service.loop._passes.forward, []

    def counted(items: Sequence[Item], *given: float) -> None:
        sizes.append(len(items))
        forward(items, *given)

    monkeypatch.setattr(service.loop._passes, "forward", counted)
    rows = [predicted(f"p{index}", index) for index in range(9)]
    assert set(statuses(service.call(rows)).values()) == {200} and sizes == [9]


def test_warnings_of_pillow_stay_silent_and_those_of_others_do_not_change(tmp_path: Path) -> None:
    service = service_of(tmp_path, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        all_of(service, _mixed(16))
        warnings.warn("of another", stacklevel=1)
    assert [str(each.message) for each in caught if "of another" in str(each.message)] == ["of another"]


def test_an_item_counts_as_undecoded_until_its_picture_is_taken(tmp_path: Path, large: Large) -> None:
    service = service_of(tmp_path, 2)
    row = large_row("large")
    service.call([row])
    (item,) = service.loop.rows["large"].items
    assert isinstance(item.state, Admitted) and item.reading is not None and not item.wants_chunks
    large.open.set()
    assert statuses(all_of(service, [row])) == {"large": 200} and item.reading is None
