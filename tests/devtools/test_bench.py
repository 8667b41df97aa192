"""The benchmark's machinery: turns, ratios and tables. No test here depends on how fast anything is."""

import json

import pytest
import torch
from click.testing import CliRunner

from devtools.bench.__main__ import main
from devtools.bench.memory import peak_bytes
from devtools.bench.results import Result, write
from devtools.bench.rounds import interleave, ratio
from devtools.bench.tails import tail_ratio

ABOUT = {
    "date": "2001-02-03",
    "cpu": "Some CPU (TM) @ 2 GHz",
    "threads": 2,
    "cores": 4,
    "python": "3.11",
    "packages": {"torch": "2.4"},
    "commit": "abc",
}


def test_contestants_are_called_in_turn_and_the_warm_up_does_not_count():
    calls = []

    def contestant(name):
        return lambda: calls.append(name) or float(len(calls))

    found = interleave({name: contestant(name) for name in "ABC"}, seconds=0, warm_up=2, least=3)
    assert calls == list("ABC") * 5
    assert found == {"A": [7, 10, 13], "B": [8, 11, 14], "C": [9, 12, 15]}


def test_rounds_go_on_until_the_time_is_over_and_say_how_far_they_are():
    now, shares = iter(range(1000)), []
    found = interleave(
        {"A": lambda: 1.0}, seconds=20, warm_up=0, least=1, progress=shares.append, clock=lambda: float(next(now))
    )
    assert len(found["A"]) > 1
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1, abs=0.1)


def test_the_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians():
    found = ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0])
    assert (found.median, found.rounds) == (2.0, 3)
    assert found.low == 1.0 and found.high == 3.0


def test_equal_ratios_have_an_interval_of_no_width():
    found = ratio([2.0] * 9, [1.0] * 9)
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("low", "high", "met"), [(1.0, 1.1, "yes"), (1.1, 1.2, "undecided"), (1.2, 1.3, "no")])
def test_what_is_asked_is_met_by_the_whole_interval(low, high, met):
    assert Result("x", (low + high) / 2, low=low, high=high, limit=1.15).met == met


def test_what_is_asked_at_least_is_met_from_above():
    assert Result("x", 1.0, low=0.95, high=1.05, least=0.9).met == "yes"
    assert Result("x", 0.8, low=0.7, high=0.85, least=0.9).met == "no"
    assert Result("x", 0.8, low=0.7, high=0.95, least=0.9).met == "undecided"
    assert Result("x", 1.0, least=0.9).asked == "≥ 0.9 ×"


def test_the_ratio_of_tails_is_that_of_the_pooled_latencies():
    found = tail_ratio([[2.0] * 50, [2.0] * 50], [[1.0] * 100])
    assert (found.low, found.median, found.high, found.rounds) == (2.0, 2.0, 2.0, 2)


def test_results_are_written_as_json_and_as_a_table(tmp_path):
    lines = [
        Result("a | b", 1.0234, low=1.01, high=1.04, limit=1.05, rounds=7),
        Result("a row", 1.64, "MB", detail={"prediction_mb": 3.0}),
    ]
    page = write(tmp_path, ABOUT, lines)
    assert page.name == "2001-02-03-some-cpu-tm-2-ghz-2-threads.md"
    text = page.read_text()
    assert "| what | asked | measured (95 % interval) | met |" in text
    assert "| a \\| b | ≤ 1.05 × | 1.023 × (1.010 to 1.040) | yes |" in text
    assert "| a row |  | 1.6 MB |  |" in text
    content = json.loads(page.with_suffix(".json").read_text())
    assert content["machine"]["commit"] == "abc"
    assert content["results"][0]["rounds"] == 7 and content["results"][0]["met"] == "yes"
    assert content["results"][1]["detail"] == {"prediction_mb": 3.0}


def test_peak_memory_is_what_was_held_at_one_time():
    def two_in_turn():
        for _ in range(2):
            torch.empty(1_000_000, dtype=torch.uint8)

    def two_at_once():
        return [torch.empty(1_000_000, dtype=torch.uint8) for _ in range(2)]

    assert peak_bytes(two_in_turn) == 1_000_000
    assert peak_bytes(two_at_once) == 2_000_000


def test_help_names_every_suite_and_every_suite_has_help():
    text = CliRunner().invoke(main, ["--help"]).output
    for suite in (
        "library",
        "server",
        "answers",
        "rates",
        "contention",
        "scaling",
        "limits",
        "gpu",
        "live",
        "photographs",
        "errors",
        "cams",
        "soak",
        "endurance",
        "deaths",
        "full",
    ):
        assert f"\n  {suite} " in text
        told = CliRunner().invoke(main, [suite, "--help"]).output
        assert "--threads" in told and "--output" in told
        assert ("--quick" in told) == (suite not in ("soak", "endurance", "deaths"))
    for script in ("handle", "heap", "frontend"):
        assert CliRunner().invoke(main, [script, "--help"]).exit_code == 0
    assert CliRunner().invoke(main, []).output == text


def test_the_full_benchmark_is_four_suites_and_each_says_what_printed_it(monkeypatch, tmp_path):
    monkeypatch.setattr("devtools.bench.results.machine", lambda threads: ABOUT)
    monkeypatch.setattr("devtools.bench.__main__._run", lambda steps, console: ([], []))
    assert CliRunner().invoke(main, ["full", "--output", str(tmp_path)]).exit_code == 0
    stem = "2001-02-03-some-cpu-tm-2-ghz-2-threads"
    pages = {path.stem.removeprefix(stem): path.read_text() for path in tmp_path.glob("*.md")}
    assert pages.keys() == {"", "-server", "-scaling", "-soak"}
    for ending, page in pages.items():
        assert f"Printed by `scripts/bench {ending[1:] or 'library'}`" in page


def test_a_run_of_named_methods_does_not_take_the_place_of_the_suites_own(monkeypatch, tmp_path):
    monkeypatch.setattr("devtools.bench.results.machine", lambda threads: ABOUT)
    monkeypatch.setattr("devtools.bench.__main__._run", lambda steps, console: ([], []))
    assert CliRunner().invoke(main, ["live", "--output", str(tmp_path)]).exit_code == 0
    assert CliRunner().invoke(main, ["live", "--method", "rise", "--output", str(tmp_path)]).exit_code == 0
    names = {path.stem.split("2-threads")[1]: path.read_text() for path in tmp_path.glob("*.md")}
    assert names.keys() == {"-live", "-live-methods"}
    assert "Printed by `scripts/bench live --method …`" in names["-live-methods"]


def test_the_commit_is_read_before_anything_is_measured(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("devtools.bench.results.machine", lambda threads: seen.append("stamp") or ABOUT)
    monkeypatch.setattr("devtools.bench.__main__._run", lambda steps, console: (seen.append("run") or [], []))
    assert CliRunner().invoke(main, ["library", "--quick", "--output", str(tmp_path)]).exit_code == 0
    assert seen == ["stamp", "run"]
