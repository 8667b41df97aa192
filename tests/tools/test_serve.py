"""`serve` serves the archives that can be served, and names the others."""

import json
import socket
import zipfile

import pytest
import requests
from click.testing import CliRunner

from heatserve_tools import serve
from heatserve_tools.torchserve.ports import HOST
from heatserve_tools.torchserve.server import Server, ServerError

MODEL = {"modelName": "net", "handler": "net_handler.py", "modelVersion": "1.0"}
ECHO = "def handle(data, context):\n    return data and ['fine'] * len(data)\n"
REFUSES = "def handle(data, context):\n    raise ValueError('explain.method is gradcm')\n"


def archive(path, handler=ECHO, config=None):
    model = MODEL if config is None else {**MODEL, "configFile": "model-config.yaml"}
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
        written.writestr("net_handler.py", handler)
        if config is not None:
            written.writestr("model-config.yaml", config)


@pytest.fixture
def run(tmp_path):
    """The command on a model store, with its files and ports out of everybody's way."""
    (tmp_path / "store").mkdir()

    def command(*arguments):
        inference, grpc = neighbours(3), neighbours(2)
        folders = ["--model-store", str(tmp_path / "store"), "--folder", str(tmp_path)]
        places = [*folders, "--port", str(inference), "--grpc-port", str(grpc)]
        return CliRunner().invoke(serve.main, [*places, "--open", *arguments])

    return command


def neighbours(count):
    """The first of so many free ports in a row."""
    while True:
        sockets = [socket.socket() for _ in range(count)]
        try:
            sockets[0].bind((HOST, 0))
            first = sockets[0].getsockname()[1]
            for offset, other in enumerate(sockets[1:], 1):
                other.bind((HOST, first + offset))
            return first
        except (OSError, OverflowError):
            continue
        finally:
            for one in sockets:
                one.close()


@pytest.mark.server
def test_a_healthy_model_is_served_beside_broken_ones_and_each_of_those_is_named(run, tmp_path, monkeypatch):
    store = tmp_path / "store"
    archive(store / "healthy.mar")
    archive(store / "empty.mar", config="")
    archive(store / "broken.mar", REFUSES)
    (store / "noise.mar").write_bytes(b"not a zip")
    answers = []

    def ask(server):
        headers = {"Content-Type": "application/octet-stream"}
        answers.append(requests.post(f"{server.inference}/predictions/healthy", b"x", headers=headers, timeout=30))

    monkeypatch.setattr(Server, "wait", ask)
    lines = run().output.splitlines()
    assert [answer.text for answer in answers] == ["fine"]
    named = [line for line in lines if line.startswith("not served")]
    assert len(named) == 3
    assert "empty.mar has a model-config.yaml that is empty" in named[0]
    assert "noise.mar is no zip file" in named[1]
    assert "Model 'broken' did not load: ValueError: explain.method is gradcm" in named[2]
    assert any("/explanations/healthy -T" in line for line in lines)
    assert "models        healthy" in lines


def test_a_model_that_was_asked_for_and_cannot_be_served_ends_the_command(run, tmp_path, monkeypatch):
    monkeypatch.setattr("heatserve_tools.torchserve.server.Server", None)
    archive(tmp_path / "store" / "healthy.mar")
    archive(tmp_path / "store" / "listed.mar", config="- a\n")
    done = run("--model", "healthy", "--model", "listed")
    assert done.exit_code == 1
    assert "listed.mar has a model-config.yaml that is a list" in done.output


def test_nothing_that_can_be_served_ends_the_command(run, tmp_path, monkeypatch):
    monkeypatch.setattr("heatserve_tools.torchserve.server.Server", None)
    (tmp_path / "store" / "a.mar").write_bytes(b"")
    archive(tmp_path / "store" / "b.mar", config="")
    done = run()
    assert done.exit_code == 1 and "a.mar is no zip" in done.output and "b.mar has a model-config" in done.output


@pytest.mark.parametrize("asked", [[], ["--model", "healthy"]])
def test_a_model_may_fail_to_load_unless_it_was_asked_for(run, tmp_path, monkeypatch, asked):
    given = []

    def server(*_, partly, **__):
        given.append(partly)
        raise ServerError("Model 'healthy' did not load")

    monkeypatch.setattr("heatserve_tools.torchserve.server.Server", server)
    archive(tmp_path / "store" / "healthy.mar")
    done = run(*asked)
    assert done.exit_code == 1 and "did not load" in done.output
    assert given == [not asked]


@pytest.mark.parametrize("offset", range(5))
def test_a_port_that_is_taken_is_a_sentence_before_anything_is_written(run, tmp_path, monkeypatch, offset):
    monkeypatch.setattr("heatserve_tools.torchserve.server.Server", None)
    archive(tmp_path / "store" / "healthy.mar")
    inference, grpc = neighbours(3), neighbours(2)
    port = [inference, inference + 1, inference + 2, grpc, grpc + 1][offset]
    with socket.create_server((HOST, port)):
        done = run("--port", str(inference), "--grpc-port", str(grpc))
    option = "--port" if offset < 3 else "--grpc-port"
    assert (done.exit_code, done.output) == (1, f"Error: Port {port} is taken; {option} names another.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "80000"], "1<=x<=65533"),
        (["--port", "-5"], "1<=x<=65533"),
        (["--grpc-port", "65535"], "1<=x<=65534"),
        (["--port", "7070", "--grpc-port", "7071"], "Port 7071 is asked for twice"),
    ],
)
def test_ports_that_cannot_be_are_refused(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.setattr("heatserve_tools.torchserve.server.Server", None)
    archive(tmp_path / "store" / "healthy.mar")
    done = run(*arguments)
    assert done.exit_code != 0 and said in done.output and "Traceback" not in done.output


def test_a_second_server_leaves_the_files_of_the_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr("heatserve_tools.torchserve.server.Server", None)
    archive(tmp_path / "store" / "healthy.mar")
    key, log = tmp_path / serve.KEYS, tmp_path / serve.LOGS / "serve.log"
    log.parent.mkdir()
    with serve._own(tmp_path, log):
        key.write_text("first")
        log.write_text("first")
        done = run()
        assert (key.read_text(), log.read_text()) == ("first", "first")
    assert done.exit_code == 1 and "Another server runs in the folder" in done.output
    assert not key.exists()
