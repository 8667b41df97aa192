"""Rows become requests, or refusals that name what is wrong."""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatserve.engine import METHODS, register, registry
from heatserve.serving.errors import Refusal
from heatserve.serving.formats import FORMATS
from heatserve.serving.options import OPTIONS
from heatserve.serving.protocols import protocol_of
from heatserve.serving.requests import Request, RequestParser
from heatserve.serving.settings import Limits
from heatserve.serving.vocabulary import Vocabulary, parse
from tests.engine.added import straight_path
from tests.serving.small import LABELS

VOCABULARY = Vocabulary(len(LABELS), dict(enumerate(LABELS)), ("trunk",))
EXPLAIN = {"explain": "True", "url_path": ""}
HTTP = {"Content-Length": "1"}


def read(row: Any, headers: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None) -> Request:
    """The request of a row's first input, as it would come over HTTP."""
    sent = {**HTTP, **(EXPLAIN if headers is None else headers)}
    protocol = protocol_of(row, sent)
    return RequestParser(VOCABULARY, defaults or {}, Limits(), (32, 32)).parse(protocol.inputs[0], protocol, sent)


def refused(row: Any, headers: dict[str, Any] | None = None) -> Refusal:
    with pytest.raises(Refusal) as error:
        read(row, headers)
    return error.value


@pytest.mark.parametrize(
    "row",
    [
        {"body": bytearray(b"\x89image")},
        {"data": bytearray(b"\x89image")},
        {"data": base64.b64encode(b"\x89image").decode()},
        {"body": {"data": base64.b64encode(b"\x89image").decode()}},
        {"body": {"data": "data:image/jpeg;base64," + base64.b64encode(b"\x89image").decode()}},
        {"body": {"data": {"b64": base64.b64encode(b"\x89image").decode()}}},
    ],
)
def test_an_image_arrives_by_every_way_of_sending_it(row: dict[str, Any]) -> None:
    assert read(row).image == b"\x89image"


def test_fields_win_over_headers_over_the_path_over_defaults() -> None:
    row, path = {"data": b"\x89"}, {**EXPLAIN, "url_path": "cam"}
    header = {**path, "X-Explain-Method": "gradient"}
    assert read(row, EXPLAIN, {"method": "vargrad", "samples": 2}).queries[0].method == "vargrad"
    assert read(row, path, {"method": "vargrad"}).queries[0].method == "cam"
    assert read(row, header).queries[0].method == "gradient"
    assert read({**row, "method": bytearray(b"smoothgrad")}, header).queries[0].method == "smoothgrad"


def test_a_null_member_leaves_the_header_its_say() -> None:
    assert (
        read({"body": {"data": "aQ==", "method": None}}, {**EXPLAIN, "X-Explain-Method": "cam"}).queries[0].method
        == "cam"
    )


def test_white_space_around_a_number_is_no_fault() -> None:
    assert read({"data": b"\x89", "method": "smoothgrad", "samples": "\x1c5 "}).queries[0].samples == 5


def test_header_names_are_taken_in_any_letter_case() -> None:
    assert read({"data": b"\x89"}, {**EXPLAIN, "x-EXPLAIN-box-threshold": "0.5"}).box_threshold == 0.5


@pytest.mark.parametrize("explain", [None, "False", "true", {"content-type": "text/plain"}, b"True", ["True"]])
def test_a_clients_own_header_makes_no_explanation(explain: Any) -> None:
    headers = {"Explain": "True", "X-Explain-Method": "nonsense", "Accept": "image/png", "explain": explain}
    request = read({"data": b"\x89", "method": "lime"}, headers)
    assert request.queries == () and request.output == "json"


def test_only_the_servers_own_header_makes_an_explanation() -> None:
    headers = {"Explain": "True", "X-Explain-Method": "nonsense", "Accept": "image/png", "explain": "False"}
    request = read({"data": b"\x89", "explain": "True", "method": "lime"}, headers)
    assert request.queries == () and request.output == "json"


def test_predictions_take_top_k_and_complain_about_nothing() -> None:
    assert read({"data": b"\x89", "top_k": "3"}, {}).top_k == 3
    assert read({"data": b"\x89", "top_k": "many"}, {}).top_k is None
    assert read({"data": b"\x89"}, {"x-explain-top-k": "2"}).top_k == 2


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"colour": "red"}, 400, "unknown option 'colour'; allowed: method, target"),
        ({"method": "lime"}, 400, "method must be one of: gradcam"),
        ({"samples": 0}, 400, "samples must be a whole number from 1"),
        ({"samples": 10**9}, 413, "samples: at most 200 are allowed"),
        ({"samples": 10**12}, 400, "samples must be a whole number"),
        ({"samples": "many"}, 400, "samples must be a whole number"),
        ({"samples": 2.5}, 400, "samples must be a whole number"),
        ({"samples": True}, 400, "samples must be a whole number"),
        ({"samples": float("inf")}, 400, "samples must be a whole number"),
        ({"noise_level": float("nan")}, 400, "noise_level must be a number"),
        ({"noise_level": "nan"}, 400, "noise_level must be a number"),
        ({"noise_level": [1]}, 400, "noise_level must be a number"),
        ({"target": 6}, 400, "target is out of range: class indices go from 0 to 5"),
        ({"target": -1}, 400, "target is out of range"),
        ({"target": "unicorn"}, 400, "target: no class has this label"),
        ({"target": "crane"}, 400, "target: several classes have this label; use an index: 2, 3"),
        ({"target": {}}, 400, "target must be a class index or label"),
        ({"target": "top7"}, 400, "target must be"),
        ({"target": "top3", "output": "png"}, 400, "output png shows one map"),
        ({"target": "top5", "method": "smoothgrad"}, 413, "targets x samples"),
        ({"method": "vargrad", "samples": 1}, 400, "samples must be at least 2"),
        ({"method": "gradient", "layer": "trunk"}, 400, "layer has no meaning"),
        ({"layer": "other"}, 400, "layer must be one of: trunk"),
        ({"overlay": "perhaps"}, 400, "overlay must be true or false"),
        ({"opacity": 1.5}, 400, "opacity must be a number from 0 to 1"),
        ({"output": "gif"}, 400, "output must be one of: json, png, webp, jpeg"),
        ({"seed": "١٢"}, 400, "seed must be a whole number"),
        ({"target": "٣"}, 400, "target: no class has this label"),
        ({"target": "é" * 3_000_000}, 400, "target is longer than 500 characters"),
        ({"method": "gradcam" + " " * 1000}, 400, "method is longer than 500"),
        ({"samples": "5 5"}, 400, "samples must be a whole number"),
    ],
)
def test_an_option_that_cannot_be_is_named_with_what_is_allowed(fields: Any, code: int, said: str) -> None:
    error = refused({"body": {"data": "aQ==", **fields}})
    assert (error.code, error.message[: len(said)]) == (code, said)


@pytest.mark.parametrize("row", [{}, {"body": b""}, {"body": []}, {"body": None}, None, {"body": {"data": 5}}, "x"])
def test_a_row_without_an_image_says_how_to_send_one(row: Any) -> None:
    assert (refused(row).code, refused(row).message[:8]) == (400, "no image")


def test_base64_that_is_none_is_a_400() -> None:
    assert refused({"body": {"data": "not base64!"}}).code == 400


def test_a_path_that_is_too_long_is_a_400() -> None:
    assert refused({"data": b"\x89"}, {**EXPLAIN, "url_path": "gradcam/extra"}).code == 400


@pytest.mark.parametrize(
    ("accept", "output"),
    [
        ("image/png", "png"),
        ("*/*", "json"),
        ("text/html, image/*;q=0.8", "png"),
        ("application/x-npy;q=0.9, application/json;q=0.1", "npy"),
        ("image/webp", "webp"),
        ("IMAGE/JPEG ; q=1.000", "jpeg"),
        ("image/*, image/png;q=0", "webp"),
        ("image/png;q=0.2, */*;q=0.1", "png"),
        ("*/*;q=0.1, image/*;q=0.2, application/x-npy;q=0.3", "npy"),
        ("application/*, application/json;q=0", "npy"),
        ("image/png;q=2, image/webp;q=0.001", "webp"),
        ("image/png;q=nan, image/webp", "webp"),
        ("image/png;level=1;q=0.5, application/json;q=0.6", "json"),
        (",;=, ;;, image/jpeg", "jpeg"),
        ("", "json"),
    ],
)
def test_accept_picks_the_output(accept: str, output: str) -> None:
    assert read({"data": b"\x89"}, {**EXPLAIN, "Accept": accept}).output == output


def test_accept_may_ask_for_a_stream() -> None:
    assert read({"data": b"\x89"}, {**EXPLAIN, "accept": "application/x-ndjson, */*;q=0.1"}).stream
    assert not read({"data": b"\x89"}, {**EXPLAIN, "accept": "*/*"}).stream


def test_the_output_option_wins_over_accept() -> None:
    assert read({"data": b"\x89", "output": "npy"}, {**EXPLAIN, "Accept": "image/png"}).output == "npy"


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/png;q=0", "image/png;q=0.0000", "é", "image", ",,"])
def test_an_accept_that_nothing_satisfies_is_a_406_with_what_there_is(accept: str) -> None:
    error = refused({"data": b"\x89"}, {**EXPLAIN, "Accept": accept})
    assert error.code == 406 and all(media in error.message for media in (form.media_type for form in FORMATS.values()))


def test_labels_and_ranks_become_targets() -> None:
    assert read({"data": b"\x89", "target": "DOG"}).queries[0].target == 1
    assert [query.rank for query in read({"data": b"\x89", "target": "top3"}).queries] == [0, 1, 2]
    assert read({"data": b"\x89", "target": "predicted"}).queries[0].target is None


TEXT = st.text(st.characters())  # lone surrogates too, which JSON may hold
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(OPTIONS)), value=JSON)
def test_any_value_of_an_option_is_parsed_or_refused_in_one_printable_line(name: str, value: Any) -> None:
    try:
        parse(name, value, VOCABULARY)
    except Refusal as refusal:
        assert refusal.code == 400 and refusal.message.isprintable() and len(refusal.message) < 500


@given(row=JSON | st.fixed_dictionaries({"body": JSON, "data": JSON}), headers=st.dictionaries(TEXT, JSON))
def test_any_row_at_all_is_read_or_refused(row: Any, headers: dict[str, Any]) -> None:
    for explain in ({}, {"explain": "True"}):
        try:
            read(row, {**headers, **explain})
        except Refusal as refusal:
            assert refusal.code in (400, 406, 413) and refusal.message.isascii() and refusal.message.isprintable()


def test_a_standard_error_takes_as_many_samples_as_the_archive_allows() -> None:
    asked = {"data": base64.b64encode(b"\x89image").decode(), "method": "smoothgrad", "standard_error": 0.5}
    (query,) = read({"body": asked}, EXPLAIN).queries
    assert (query.samples, query.standard_error) == (Limits().max_samples, 0.5)
    (query,) = read({"body": {**asked, "samples": 30}}, EXPLAIN).queries
    assert query.samples == 30
    assert [query.samples for query in read({"body": {**asked, "target": "top3"}}, EXPLAIN).queries] == [66] * 3
    with pytest.raises(Refusal, match="standard_error belongs to smoothed maps"):
        read({"body": {**asked, "method": "gradcam"}}, EXPLAIN)


@pytest.fixture
def path_method() -> Iterator[Vocabulary]:
    """The words of an archive that knows a method of a path too, whose draws are not random."""
    before = dict(METHODS)
    register(straight_path.METHOD)
    yield Vocabulary(len(LABELS), dict(enumerate(LABELS)), ("trunk",))
    registry._methods.clear()
    registry._methods.update(before)


def test_a_method_that_is_registered_later_can_be_asked_for(path_method: Vocabulary) -> None:
    assert "straight_path" in OPTIONS["method"].allowed and "straight_path" in path_method.methods
    protocol = protocol_of({"data": b"\x89", "method": "straight_path", "samples": 7}, {**EXPLAIN, **HTTP})
    request = RequestParser(path_method, {"standard_error": 0.1}, Limits(), (32, 32)).parse(
        protocol.inputs[0], protocol, {**EXPLAIN, **HTTP}
    )
    (query,) = request.queries
    assert (query.method, query.samples, query.standard_error) == ("straight_path", 7, None)
    # A forward pass that predictions share, and seven points with a backward pass each.
    assert request.work == 1 + 7 * 3


def test_a_standard_error_of_draws_that_are_not_random_is_refused(path_method: Vocabulary) -> None:
    row = {"data": b"\x89", "method": "straight_path", "standard_error": "0.1"}
    protocol = protocol_of(row, {**EXPLAIN, **HTTP})
    with pytest.raises(Refusal, match="random samples, which straight_path does not take") as refusal:
        RequestParser(path_method, {}, Limits(), (32, 32)).parse(protocol.inputs[0], protocol, {**EXPLAIN, **HTTP})
    assert refusal.value.code == 400


@pytest.mark.parametrize(
    ("asked", "work"),
    [
        ({}, 1),
        ({"method": "gradient"}, 1 + 3),
        ({"method": "gradcam", "samples": 4}, 1 + 4 * 3),
        ({"method": "gradient", "target": "top3"}, 1 + 1 + 3 * 2),
        ({"method": "smoothgrad", "samples": 5, "target": "top2"}, 1 + 5 * (1 + 2 * 2)),
        ({"method": "guided_gradcam", "samples": 5, "target": "top2"}, 1 + 5 * (1 + 2 * 4)),
        ({"method": "integrated_gradients", "samples": 5, "target": "top3"}, 1 + (5 + 2) * (1 + 3 * 2)),
        ({"method": "rise", "samples": 30, "target": "top5"}, 1 + 30),
        # Its masks come from an activation, which a target might change.
        ({"method": "scorecam", "samples": 30, "target": "top2"}, 1 + 2 * 30),
    ],
)
def test_a_request_costs_a_pass_and_for_each_sample_one_and_two_for_each_target(
    asked: dict[str, Any], work: int
) -> None:
    assert read({"body": {"data": "aQ==", **asked}}).work == work


def test_the_table_of_options_can_be_hashed_and_copied_and_its_methods_are_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for option in OPTIONS.values():
        assert copy.deepcopy(option) == pickle.loads(pickle.dumps(option)) == option
        assert hash(copy.copy(option)) == hash(option)
    monkeypatch.setitem(registry._methods, "live", METHODS["gradient"])
    assert "live" in OPTIONS["method"].choices and OPTIONS["method"].allowed.endswith(", live")
