"""`heatserve explain` against a scripted server."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from devtools.paths import HANDLERS, ROOT
from heatserve_tools.explain import main
from tests.client.scripted import Planned, Scripted, explained, refusal, running

COMMAND = [sys.executable, "-m", "heatserve_tools", "explain"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HANDLERS), str(ROOT)]), "COLUMNS": "100"}


@pytest.fixture
def server() -> Iterator[Scripted]:
    with running() as scripted:
        yield scripted


def run(server: Scripted, *arguments: object, model: str = "m", **environment: str) -> Result:
    given = [*map(str, arguments), "--url", server.url, "--model", model]
    return CliRunner().invoke(main, given, env={"HEATSERVE_TOKEN": None, **environment})


def pictures(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"picture")
    return [folder / name for name in names]


def test_no_picture_is_ever_overwritten(server: Scripted, tmp_path: Path) -> None:
    given = [*pictures(tmp_path / "a", "cat.jpg", "cat.png"), *pictures(tmp_path / "b", "cat.jpg", "cat.png")]
    out = tmp_path / "out"
    rounds = [("one", "gradcam", (7,)), ("one", "gradcam", (8, 9)), ("one", "cam", (7,)), ("t/w o", "cam", (7,))]
    for model, method, targets in rounds:
        server.plan = [explained(method, *targets)] * len(given)
        assert run(server, *given, "--output", out, model=model).exit_code == 0
    written = sorted(path.name for path in out.iterdir())
    assert len(written) == len(given) * 5
    assert written[:4] == ["cat-one-cam-7-2.png", "cat-one-cam-7-3.png", "cat-one-cam-7-4.png", "cat-one-cam-7.png"]
    assert {"cat-one-gradcam-8.png", "cat-one-gradcam-9.png", "cat-t_w_o-cam-7.png"} <= set(written)


def test_a_file_that_is_there_keeps_its_content(server: Scripted, tmp_path: Path) -> None:
    (picture,) = pictures(tmp_path, "cat.jpg")
    (tmp_path / "cat-m-cam-7.png").write_bytes(b"mine")
    server.plan = [explained("cam", 7)]
    done = run(server, picture)
    assert done.stdout.splitlines()[0] == f"{picture}: cat 0.90"
    assert (tmp_path / "cat-m-cam-7.png").read_bytes() == b"mine"
    assert Image.open(tmp_path / "cat-m-cam-7-2.png").getpixel((0, 0)) == (7, 0, 0)


def test_a_folder_is_explained_twice_without_taking_its_own_overlays_for_pictures(
    server: Scripted, tmp_path: Path
) -> None:
    pictures(tmp_path, "b.JPG", "a.png", "notes.txt", ".hidden.png")
    for _ in range(2):
        server.plan = [explained("cam", 7)] * 2
        assert run(server, tmp_path).exit_code == 0
    assert len(server.asked) == 4
    assert sorted(path.name for path in (tmp_path / "explained").iterdir()) == [
        "a-m-cam-7-2.png",
        "a-m-cam-7.png",
        "b-m-cam-7-2.png",
        "b-m-cam-7.png",
    ]


def test_a_broken_picture_is_named_at_the_end_and_the_others_are_explained(server: Scripted, tmp_path: Path) -> None:
    first, second, third = pictures(tmp_path, "1.png", "2.png", "3.png")
    third.write_bytes(b"")
    empty = tmp_path / "none"
    empty.mkdir()
    server.plan = [refusal(415, "not a picture"), explained("cam", 7)]
    done = run(server, first, tmp_path / "lost.png", second, third, empty)
    assert done.exit_code == 1 and f"{second}: cat" in done.stdout
    named = [line.removeprefix("not explained  ") for line in done.stderr.splitlines()]
    assert sorted(named) == sorted(
        [
            f"{empty}: no file in this folder ends in .jpg, .jpeg, .png, .webp, .gif, .bmp, .tif, .tiff",
            f"{first}: 415: not a picture",
            f"{tmp_path / 'lost.png'}: No such file or directory",
            f"{third}: the file is empty",
        ]
    )


@pytest.mark.parametrize(
    ("planned", "way_out"),
    [
        (refusal(400, "method must be one of …"), "--describe"),
        (refusal(400, "Token Authorization failed."), "HEATSERVE_TOKEN"),
        (refusal(404, "Model not found: m"), "--model"),
        ((200, {}, b"<html>"), "--url"),
        ((200, {}, b'{"cat": 0.9}'), "--url"),
    ],
)
def test_a_fault_of_every_picture_ends_the_run_with_a_way_out(
    server: Scripted, tmp_path: Path, planned: Planned, way_out: str
) -> None:
    server.plan = [planned]
    done = run(server, *pictures(tmp_path, "1.png", "2.png"))
    assert done.exit_code == 1 and len(server.asked) == 1
    assert way_out in done.stderr and "Traceback" not in done.output


def test_options_reach_the_server_by_name(server: Scripted, tmp_path: Path) -> None:
    server.plan = [explained("cam", 7)]
    (picture,) = pictures(tmp_path, "1.png")
    more = ("--method", "cam", "--target", "top3", "--samples", "9", "-o", "noise_level=0.2", "--version", "2.0")
    done = run(server, picture, *more, "-o", "overlay=false", HEATSERVE_TOKEN=" secret\n")
    assert done.exit_code == 0 and (tmp_path / "1-m-2.0-cam-7.png").is_file()
    ((_, path, headers, body),) = server.asked
    assert (path, body) == ("/explanations/m/2.0", b"picture")
    assert headers["Authorization"] == "Bearer secret"
    sent = {name.removeprefix("X-Explain-"): text for name, text in headers.items() if name.startswith("X-Explain-")}
    assert sent == {
        "boxes": "true",
        "overlay": "true",
        "method": "cam",
        "target": "top3",
        "samples": "9",
        "noise-level": "0.2",
    }


@pytest.mark.parametrize("pair", ["lime", "=1", "output=png", "stream=true", "picture=x", "self=x"])
def test_an_option_that_the_command_cannot_send_is_refused_before_the_server_is_asked(
    server: Scripted, tmp_path: Path, pair: str
) -> None:
    done = run(server, *pictures(tmp_path, "1.png"), "-o", pair)
    assert done.exit_code == 2 and not server.asked and "Traceback" not in done.output


def test_without_a_picture_or_a_model_the_command_says_how_to_go_on(server: Scripted) -> None:
    assert run(server).exit_code == 2
    done = CliRunner().invoke(main, ["cat.jpg"])
    assert done.exit_code == 2 and "--model NAME" in done.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://a", "http://a:99999"])
def test_an_address_that_is_none_ends_the_command(tmp_path: Path, url: str) -> None:
    done = CliRunner().invoke(main, ["cat.jpg", "--model", "m", "--url", url])
    assert done.exit_code == 1 and done.stderr.startswith("Error: ")


def test_a_token_that_no_header_can_carry_is_not_printed(server: Scripted, tmp_path: Path) -> None:
    done = run(server, *pictures(tmp_path, "1.png"), HEATSERVE_TOKEN="geheimnißvoll\nX: y")
    assert done.exit_code == 1 and "geheim" not in done.output


@pytest.mark.parametrize(("token", "said"), [(None, "--open"), ("old", "Keys end after an hour")])
def test_a_token_that_is_missing_or_wrong_is_to_be_found_in_the_servers_folder(
    server: Scripted, tmp_path: Path, token: str | None, said: str
) -> None:
    server.plan = [refusal(400, "Token Authorization failed.")]
    given = {} if token is None else {"HEATSERVE_TOKEN": token}
    done = run(server, *pictures(tmp_path, "1.png"), **given)
    assert done.exit_code == 1 and said in done.stderr and "key_file.json" in done.stderr


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_a_name_that_is_too_long_for_its_overlays_is_shortened(server: Scripted, tmp_path: Path, letter: str) -> None:
    given = pictures(tmp_path, letter * (250 // len(letter.encode())) + ".png", "2.png")
    server.plan = [explained("cam", 7)] * 4
    for _ in range(2):
        assert run(server, *given, "--output", tmp_path / "out").exit_code == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(written) == 4 and written[2].endswith(f"{letter}-m-cam-7-2.png")


def test_a_label_that_the_outputs_encoding_lacks_is_printed_by_number(server: Scripted, tmp_path: Path) -> None:
    status, headers, content = explained("cam", 7)
    server.plan = [(status, headers, content.replace(b'"cat"', rb'"\u732b"'))]
    (picture,) = pictures(tmp_path, "1.png")
    command = [sys.executable, "-m", "heatserve_tools", "explain", str(picture), "--url", server.url, "--model", "m"]
    done = subprocess.run(command, env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert done.returncode == 0 and "\\u732b 0.90" in done.stdout


def test_json_is_a_line_for_each_picture_and_writes_nothing(server: Scripted, tmp_path: Path) -> None:
    given = pictures(tmp_path, "1.png", "2.png")
    server.plan = [explained("cam", 7), explained("cam", 8)]
    done = run(server, *given, "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["picture"] for answer in answers] == [str(path) for path in given]
    assert [answer["explanations"][0]["target"]["index"] for answer in answers] == [7, 8]
    assert sorted(tmp_path.iterdir()) == given
    assert {headers["X-Explain-overlay"] for _, _, headers, _ in server.asked} == {"false"}


def test_a_servers_words_do_not_steer_the_terminal(server: Scripted, tmp_path: Path) -> None:
    status, headers, content = explained("cam", 7)
    server.plan = [(status, headers, content.replace(b'"cat"', rb'"\u001b[2J[red]cat"')), refusal(415, "\x1b[2J")]
    done = run(server, *pictures(tmp_path, "1.png", "2.png"))
    assert "\x1b" not in done.output and "[red]cat" in done.stdout


def test_an_overlay_that_is_no_picture_is_the_fault_of_that_answer(server: Scripted, tmp_path: Path) -> None:
    status, headers, content = explained("cam", 7)
    answer = json.loads(content)
    answer["explanations"][0]["overlay"]["data"] = "bm8="
    server.plan = [(status, headers, json.dumps(answer).encode()), explained("cam", 7)]
    done = run(server, *pictures(tmp_path, "1.png", "2.png"))
    assert done.exit_code == 1 and "1.png: the answer's overlay cannot be read" in done.stderr
    assert (tmp_path / "2-m-cam-7.png").is_file()


def test_ctrl_c_ends_the_command_with_130(tmp_path: Path) -> None:
    class Silent(Scripted):
        reached = False

        def finish_request(self, request: object, client_address: object) -> None:
            self.reached = True
            time.sleep(2)

    (picture,) = pictures(tmp_path, "1.png")
    server = Silent()
    with running(server):
        command = [*COMMAND, str(picture), "--url", server.url, "--model", "m"]
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
        while not server.reached and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Traceback" not in said


def test_a_bar_on_the_terminal_leaves_the_lines_to_the_file(server: Scripted, tmp_path: Path) -> None:
    given = pictures(tmp_path, "1.png", "2.png")
    server.plan = [explained("cam", 7)] * 2
    command = [*COMMAND, *map(str, given), "--url", server.url, "--model", "m"]
    terminal, end = pty.openpty()
    with open(tmp_path / "lines", "wb") as lines:
        process = subprocess.Popen(command, env={**ENVIRONMENT, "TERM": "xterm"}, stdout=lines, stderr=end)
    os.close(end)
    seen = b""
    while process.poll() is None or select.select([terminal], [], [], 0)[0]:
        try:
            seen += os.read(terminal, 65_536)
        except OSError:
            break
    os.close(terminal)
    assert process.wait(30) == 0 and b"Explaining" in seen and b"2/2" in seen
    assert (tmp_path / "lines").read_text().splitlines() == [
        f"{given[0]}: cat 0.90",
        f"  cam of cat: {tmp_path / '1-m-cam-7.png'}",
        f"{given[1]}: cat 0.90",
        f"  cam of cat: {tmp_path / '2-m-cam-7.png'}",
    ]
