"""The search for dear pictures: its measurements, the pictures that it keeps and the ones that it tries next."""

from __future__ import annotations

import io
import random

import pytest
from click.testing import CliRunner
from PIL import Image

from devtools.fuzz import costly, measured
from devtools.fuzz.__main__ import main
from devtools.fuzz.dials import Dials
from devtools.fuzz.measured import Candidate, Child, Found
from devtools.fuzz.search import PEAK, SECONDS, SMALL, SMALL_SECONDS, UNPROMISED, Search, beyond
from devtools.fuzz.tiffs import DOUBLES, FORMS, Form, written


def found(
    seconds: float,
    sent: int = 1_000,
    image: str = "PNG plain L 3 x 4",
    peak: int = 0,
    promised: float = 0.1,
    **more: object,
) -> Found:
    return Found(Candidate("png", {}, 0), {"pixels": 0.9}, image, sent, seconds, promised, peak, **more)  # type: ignore[arg-type]


def test_the_same_dials_and_seed_make_the_same_bytes() -> None:
    for kind, make in costly.KINDS.items():
        once = make(Dials({"pixels": 0.1, "amount": 0.1}, random.Random(4)))
        assert once == make(Dials({"pixels": 0.1, "amount": 0.1}, random.Random(4))), kind


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("deflated", [False, True])
def test_pil_opens_a_tiff_of_every_form(form: Form, deflated: bool) -> None:
    image = Image.open(io.BytesIO(written((64, 48), tile=(16, 16), deflated=deflated, form=form, shared=False)))
    assert image.size == (64, 48) and len(image.tile) == (1 if deflated else 12)
    assert image.tag_v2._endian == form.order
    if form != FORMS[-1]:
        assert image.getextrema() == (0, 0)


@pytest.mark.parametrize("double", ["empty", "unknown", "behind"])
def test_pil_passes_over_the_harmless_one_of_two_entries(double: str) -> None:
    assert double in DOUBLES
    image = Image.open(io.BytesIO(written((64, 48), tile=(16, 16), deflated=False, double=double)))
    assert len(image.tile) == 12


def test_the_search_begins_with_every_form_and_every_double() -> None:
    begun = [dials for kind, dials in costly.extremes() if kind == "tiled"]
    assert {int(dials["form"] * len(FORMS)) for dials in begun} == {*range(len(FORMS))}
    assert {int(dials["double"] * len(DOUBLES)) for dials in begun} == {*range(len(DOUBLES))}


def test_a_picture_is_beyond_where_a_small_one_takes_long_or_any_takes_longer() -> None:
    for each, wrong in (
        (found(SMALL_SECONDS * 1.01), True),
        (found(SMALL_SECONDS * 0.99), False),
        (found(SMALL_SECONDS * 1.01, sent=SMALL + 1), False),
        (found(SECONDS * 1.01, sent=SMALL + 1, promised=9.0), True),
        (found(0, sent=SMALL + 1, peak=int(PEAK) + 1), True),
        (found(UNPROMISED + 0.21, sent=SMALL + 1), True),
        (found(UNPROMISED + 0.19, sent=SMALL + 1), False),
        (found(UNPROMISED + 0.21, sent=SMALL + 1, promised=0.2), False),
    ):
        search = Search()
        search.take(each)
        assert bool(list(beyond(search))) == wrong, each


def test_the_dearest_of_each_sort_is_kept() -> None:
    search = Search()
    for seconds in (0.1, 0.4, 0.2):
        search.take(found(seconds))
        search.take(found(seconds / 2, image="PNG interlaced L 3 x 4"))
    assert [each.seconds for each in search.worst()] == [0.4, 0.2]


def test_one_that_was_refused_for_its_cost_is_tried_again_smaller() -> None:
    search = Search()
    search.first.clear()
    refused = found(0.01, verdict="The image would take 800 ms to decode and resize; 400 ms are allowed for ...")
    search.take(Found(**{**refused.__dict__, "promised": 0.8}))
    [again] = search.first
    assert 0.8 < again.dials["pixels"] < 0.9


def test_a_child_measures_what_becomes_of_a_picture_and_survives_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with Child() as child:
        small = child.measure(Candidate("jpeg", {"pixels": 0.3, "oddity": 0.01, "claimed": 0.1}, 0))
        assert small.verdict == "accepted" and small.image.startswith("JPEG") and small.sent > 0
        assert 0 < small.seconds < 5 and small.promised > 0
        child._process.kill()
        dead = child.measure(Candidate("jpeg", {}, 0))
        assert dead.verdict == "the process died" and dead.seconds == measured.TIMEOUT
        refused = child.measure(Candidate("bmp", {"compression": 0.5, "bits": 0.6, "pixels": 0.2}, 0))
        assert "run-length" in refused.verdict


def test_the_command_shows_what_it_found() -> None:
    result = CliRunner().invoke(main, ["--cost", "--seconds", "0"])
    assert result.exit_code == 0 and "Bounds" in result.output


def test_slack_is_for_all_bounds_alike() -> None:
    search = Search()
    found = Found(Candidate("png", {}, 0), {}, "PNG", 1_000, 1.2 * SMALL_SECONDS, 0.3, 1, "accepted")
    search.take(found)
    assert len([*beyond(search)]) == 1
    assert not [*beyond(search, 1.6)]


def test_a_file_that_takes_for_ever_to_be_made_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Candidate] = []

    class Mute:
        """A child that never answers."""

        def send(self, candidate: Candidate) -> None:
            sent.append(candidate)

        def poll(self, seconds: float) -> bool:
            return False

    monkeypatch.setattr(measured.Child, "_start", lambda self: setattr(self, "_connection", Mute()))
    monkeypatch.setattr(measured.Child, "__exit__", lambda self, *_: None)
    found = measured.Child().measure(Candidate("tiff", {}, 0))
    assert len(sent) == 1 and (found.seconds, found.verdict) == (0.0, "not made: no end")
