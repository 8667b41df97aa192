"""The client against a server that is busy, broken or silent. Healthy servers are in e2e."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys

import pytest

from devtools.paths import HANDLERS
from heatserve.client import Client, HeatserveError
from tests.client.scripted import Planned, Scripted, explained, refusal

GOOD: Planned = (200, {}, b'{"cat": 0.9}')


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(server: Scripted) -> None:
    waits: list[float] = []
    server.plan = [refusal(503, "later", **{"Retry-After": "7"}), refusal(503, "later"), GOOD]
    assert Client(server.url, "m", sleep=waits.append).predict(b"i") == {"cat": 0.9}
    assert waits == [7.0, 2.0] and len(server.asked) == 3


def test_a_server_that_stays_busy_is_given_up_with_its_own_words(server: Scripted) -> None:
    server.plan = [refusal(503, "too much", **{"Retry-After": "1"})] * 3
    with pytest.raises(HeatserveError, match="too much") as error:
        Client(server.url, "m", retries=2, sleep=lambda _: None).predict(b"i")
    assert (error.value.code, error.value.retry_after, len(server.asked)) == (503, 1.0, 3)


@pytest.mark.parametrize("code", [400, 401, 404, 413, 415, 500, 507])
def test_what_would_fail_again_is_not_tried_again(server: Scripted, code: int) -> None:
    server.plan = [refusal(code, "no"), GOOD]
    with pytest.raises(HeatserveError, match="no") as error:
        Client(server.url, "m").predict(b"i")
    assert error.value.code == code and len(server.asked) == 1


def test_an_answer_that_breaks_off_is_not_asked_for_again(server: Scripted) -> None:
    server.plan = [(200, {"Content-Length": "1000"}, b'{"cat"'), GOOD]
    with pytest.raises(HeatserveError, match="broke off") as error:
        Client(server.url, "m", timeout=5).predict(b"i")
    assert error.value.code == 0 and len(server.asked) == 1


def test_an_answer_that_is_no_torchserves_is_said_to_be_none(server: Scripted) -> None:
    server.plan = [(200, {}, b"<html>"), (502, {}, b"<html>")]
    with pytest.raises(HeatserveError, match="not JSON"):
        Client(server.url, "m").predict(b"i")
    with pytest.raises(HeatserveError, match="Bad Gateway"):
        Client(server.url, "m").predict(b"i")


def test_nobody_at_the_address_is_an_error_with_the_address(server: Scripted) -> None:
    port = server.server_address[1]
    server.server_close()
    with pytest.raises(HeatserveError, match=f"127.0.0.1:{port} does not answer"):
        Client(f"http://127.0.0.1:{port}", "m", timeout=5).predict(b"i")


def test_the_token_the_version_and_the_options_travel(server: Scripted) -> None:
    server.plan = [GOOD, GOOD]
    client = Client(server.url + "/behind/", "a model", token="secret", version="2.0")
    client.predict(b"picture", top_k=3)
    verb, path, headers, body = server.asked[0]
    assert (verb, path, body) == ("POST", "/behind/predictions/a%20model/2.0", b"picture")
    assert headers["Authorization"] == "Bearer secret" and headers["X-Explain-top-k"] == "3"


@pytest.mark.parametrize("token", ["geheimnißvoll", "secret\n"])
def test_a_token_that_no_header_can_carry_is_refused_at_once(token: str) -> None:
    with pytest.raises(ValueError, match="the token holds characters that no header can carry"):
        Client("http://127.0.0.1:1", "m", token=token)


def test_a_label_of_any_script_travels_as_json(server: Scripted) -> None:
    server.plan = [refusal(400, "seen")]
    with pytest.raises(HeatserveError, match="seen"):
        Client(server.url, "m").explain(b"picture", target="Bär", boxes=True)
    _, _, headers, body = server.asked[0]
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"overlay": "true", "target": "Bär", "boxes": "true", "data": "cGljdHVyZQ=="}


def test_a_stream_that_nobody_reads_to_its_end_is_closed_at_once(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then the server sees that the client has gone, and stops its work."""
    kept: list[http.client.HTTPResponse] = []
    getresponse = http.client.HTTPConnection.getresponse

    def keep(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        kept.append(getresponse(connection))
        return kept[-1]

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", keep)
    status, headers, line = explained("cam", 7)
    server.plan = [(status, headers, (line + b"\n") * 3)]
    results = Client(server.url, "m").stream(b"i")
    next(results)
    assert not kept[0].isclosed()
    results.close()  # type: ignore[attr-defined]
    assert kept[0].isclosed()


def test_a_stream_that_ends_in_an_error_raises_it(server: Scripted) -> None:
    server.plan = [(200, {}, b'\n{"code": 507, "message": "out of memory"}\n')]
    with pytest.raises(HeatserveError, match="out of memory") as error:
        next(Client(server.url, "m").stream(b"i"))
    assert error.value.code == 507


def test_a_regressions_answer_has_values_and_no_probabilities(server: Scripted) -> None:
    status, headers, line = explained("gradcam", 0)
    answer = json.loads(line)
    for entry in (*answer["predictions"], answer["explanations"][0]["target"]):
        entry["value"] = 10 * entry.pop("probability")
    server.plan = [(status, headers, line), (status, headers, json.dumps(answer).encode())]
    before, found = (Client(server.url, "m").explain(b"i") for _ in range(2))
    assert before.predictions[0].value is None and before.predictions[0].number == before.predictions[0].probability
    target = found.explanation.target
    assert target.probability is None and target.value == target.number == answer["explanations"][0]["target"]["value"]


def test_an_answer_without_a_map_is_a_result_without_explanations(server: Scripted) -> None:
    status, headers, line = explained("gradcam", 0)
    answer = {**json.loads(line), "explanations": []}
    server.plan = [(status, headers, json.dumps(answer).encode())]
    found = Client(server.url, "m").explain(b"i", target="present")
    assert found.explanations == () and found.predictions
    with pytest.raises(ValueError, match="no label is above the threshold"):
        _ = found.map


def test_an_address_that_is_none_is_refused_at_once() -> None:
    for url in ("127.0.0.1:8080", "ftp://a", ""):
        with pytest.raises(ValueError, match="http://host:port"):
            Client(url, "m")


def test_the_client_needs_the_standard_library_alone() -> None:
    code = "import sys; import heatserve.client; print(sorted({'torch', 'numpy', 'PIL', 'ts'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(HANDLERS)}
    )
    assert done.stdout.strip() == "[]", done.stderr
