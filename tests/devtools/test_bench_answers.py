"""The suites of photographs through a server, with endpoints that answer after a known time."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from devtools.bench import answers, checkouts, pictures, rates, turns
from devtools.bench.children import ChildFailed
from devtools.bench.endpoint import EXPLANATIONS, PREDICTIONS
from devtools.bench.live import LIVE, ORDINARY
from devtools.bench.results import Result


class _Clock:
    """A clock that goes on while somebody sleeps."""

    def __init__(self) -> None:
        self._now = 0.0

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def perf_counter(self) -> float:
        return self._now


class _Known:
    """Answers after the seconds that a function gives for the API, the options and the image's bytes."""

    def __init__(self, seconds, sleep=time.sleep) -> None:
        self._seconds, self._sleep, self._lock = seconds, sleep, threading.Lock()
        self.asked: list[tuple[str, str, int]] = []

    def ask(self, api: str, options: Mapping[str, str] | None = None, image: bytes = b"") -> None:
        form = (options or {}).get("Accept", "")
        with self._lock:
            self.asked.append((api, form, len(image)))
        self._sleep(self._seconds(api, form, len(image)))


def test_photographs_have_their_sizes_and_a_cameras_bytes_a_pixel() -> None:
    found = pictures.sizes()
    assert pictures.sizes() == found
    for megapixels, (width, height) in pictures.SIZES.items():
        with Image.open(io.BytesIO(found[megapixels])) as picture:
            assert (picture.format, picture.size) == ("JPEG", (width, height))
        assert width * height / 1e6 == pytest.approx(megapixels, rel=0.25)
        assert 0.15 < len(found[megapixels]) / (width * height) < 0.5


def test_a_turn_gives_the_median_of_its_requests_and_keeps_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 1, 1, 4, 4, 6])
    monkeypatch.setattr(turns.time, "perf_counter", lambda: float(next(clock)))
    requests = turns.Requests(lambda: None, 3)
    assert requests() == 2.0
    assert requests.last(1) == [[1.0, 3.0, 2.0]]
    assert turns.medians([[1.0, 3.0, 2.0], [5.0]]) == [2.0, 5.0]
    assert turns.summary([[0.001, 0.003], [0.002]], "ours")["ours_p50_ms"] == 2.0


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Result], _Known, _Known]:
    photographs = {0.1: b"1", 0.8: b"12", 2.5: b"123", 12.0: b"1234"}
    monkeypatch.setattr(pictures, "sizes", lambda: photographs)
    times = {"": 0.006, "image/png": 0.008, "image/webp": 0.010, "image/jpeg": 0.012}
    clock = _Clock()
    monkeypatch.setattr(turns, "time", clock)
    ours = _Known(lambda api, form, size: 0.004 if api == PREDICTIONS else times[form], clock.sleep)
    stock = _Known(lambda api, form, size: 0.002, clock.sleep)

    @contextmanager
    def both(network: str) -> Iterator[tuple[_Known, _Known]]:
        yield ours, stock

    monkeypatch.setattr(answers, "both", both)
    return answers.measure("lite0", 0, 2, lambda share: None), ours, stock


def test_explanations_are_compared_with_predictions_of_the_same_photograph(answered) -> None:
    found, ours, stock = answered
    by_name = {line.what: line for line in found}
    assert len(by_name) == len(answers.JSON) * 2 + len(answers.OVERLAYS)
    for line in found:
        expected = 2.0 if "stock handler" in line.what else None
        for name, times in (("JSON", 1.5), ("PNG", 2.0), ("WebP", 2.5), ("JPEG", 3.0)):
            if f"as {name}" in line.what or f"as a {name}" in line.what:
                expected = times
        assert line.value == pytest.approx(expected, rel=1e-6), line.what
    assert by_name["Grad-CAM as JSON, 12 megapixels: against a prediction of the same handler (lite0)"].limit == 1.1
    each = answers.REQUESTS * 3  # two rounds, and one to warm up
    sizes = range(1, 5)
    assert Counter(ours.asked) == {
        **{(PREDICTIONS, "", size): each for size in sizes},
        **{(EXPLANATIONS, "", size): each for size in sizes},
        **{(EXPLANATIONS, f"image/{form}", 3): each for form in ("png", "webp", "jpeg")},
    }
    assert Counter(stock.asked) == {(PREDICTIONS, "", size): each for size in sizes}


def test_half_of_the_rows_are_explanations_and_the_rates_are_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        (checkout, mode): _Known(lambda *_, seconds=seconds: seconds)
        for checkout, seconds in ((rates.NEW, 0.01), (rates.OLD, 0.03))
        for mode in (ORDINARY, LIVE)
    }

    @contextmanager
    def served(network: str, against: Path | None) -> Iterator[dict]:
        yield {key: each for key, each in known.items() if against or key[0] == rates.NEW}

    monkeypatch.setattr(rates, "served", served)
    monkeypatch.setattr(checkouts, "commit", lambda checkout: "abc")
    alone = rates.measure("lite0", None, 0, 2, lambda share: None)
    assert [line.asked for line in alone] == ["", ""]
    # Eight clients, each with a request every hundredth of a second at most.
    assert all(line.unit == "a second" and 0 < line.value <= 800 for line in alone)
    found = rates.measure("lite0", Path(), 0, 2, lambda share: None)
    compared = [line for line in found if "against commit abc" in line.what]
    assert [line.asked for line in compared] == ["≥ 1.5 ×"] * 2
    assert all(line.value > 1.2 for line in compared)  # 3 where the machine does nothing else
    for each in known.values():
        assert len({api for api, *_ in each.asked}) == 2
        counts = Counter(api for api, *_ in each.asked)
        assert counts[PREDICTIONS] == counts[EXPLANATIONS]


def test_a_folder_that_is_no_checkout_makes_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="made no archive"):
        checkouts.ours(tmp_path, tmp_path / "old", "lite0")
    assert checkouts.commit(tmp_path) == "unknown"
