"""One's own TorchServe, with handlers of a few lines."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import requests

from devtools.paths import ROOT
from heatserve_tools.torchserve import launch
from heatserve_tools.torchserve.server import Server, ServerError

pytestmark = pytest.mark.server

MANIFEST = {
    "createdOn": "01/01/1980 00:00:00",
    "runtime": "python",
    "model": {"modelName": "echo", "handler": "echo_handler.py", "modelVersion": "1.0"},
    "archiverVersion": "0.12.0",
}
ECHO = """
import os, sys
def handle(data, context):
    if data is not None:
        return [{"environment": dict(os.environ), "path": sys.path}] * len(data)
"""
REFUSES = """
class Handler:
    def initialize(self, context):
        raise ValueError("explain.method is 'gradcm'; allowed: gradcam")
    def handle(self, data, context):
        return data
"""
HEADERS = {"Content-Type": "application/octet-stream"}


def archive(folder, handler):
    path = folder / "archive.mar"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
        written.writestr("echo_handler.py", handler)
    return path


def alive(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def test_a_server_answers_at_its_own_addresses_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", "hidden")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    overrides = {"blacklist_env_vars": ".*(SECRET|TOKEN).*"}
    with Server({"echo": archive(tmp_path, ECHO)}, overrides, {"COLOUR": "blue"}, tmp_path / "log") as server:
        answer = requests.post(f"{server.inference}/predictions/echo", data=b"x", headers=HEADERS).json()
        environment = answer["environment"]
        assert environment["COLOUR"] == "blue"
        assert Path(environment["TMPDIR"]).parent == server.directory
        assert "MY_API_TOKEN" not in environment
        assert "/nowhere" not in answer["path"]
        assert requests.get(f"{server.metrics}/metrics").ok
        assert requests.get(f"{server.management}/models").json()["models"][0]["modelName"] == "echo"
        assert requests.post(f"{server.management}/models?url=x.mar").status_code == 405
        assert "Model server started" in server.log()
        pids, directory = [server.pid, *server.worker_pids("echo")], server.directory
        assert len(alive(pids)) == 2

        (worker,) = server.worker_pids("echo")
        os.kill(worker, signal.SIGKILL)
        while server.worker_pids("echo") == [worker]:
            time.sleep(0.1)
        server.wait_ready("echo", 60)
        pids += server.worker_pids("echo")
    assert alive(pids) == []
    assert not directory.exists()
    assert (tmp_path / "log").read_text() == server.log() != ""


def test_a_workers_threads_sleep_soon_unless_an_operator_says_how_they_wait(tmp_path, monkeypatch):
    for name in launch.WAITING:
        monkeypatch.delenv(name, raising=False)
    assert launch.environment(tmp_path, {})["GOMP_SPINCOUNT"] == launch.SPINS
    assert "GOMP_SPINCOUNT" not in launch.environment(tmp_path, {"OMP_WAIT_POLICY": "ACTIVE"})
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert launch.environment(tmp_path, {})["GOMP_SPINCOUNT"] == "5"


def test_a_model_that_refuses_to_load_is_an_error_with_the_handlers_own_words(tmp_path):
    with pytest.raises(ServerError, match=r"did not load: ValueError: explain\.method is 'gradcm'; allowed"):
        Server({"echo": archive(tmp_path, REFUSES)}).start()


def test_models_that_do_not_load_are_told_apart_and_the_others_are_served(tmp_path):
    models = {}
    for name, handler in (("echo", ECHO), ("refuses", REFUSES), ("damaged", ECHO)):
        (tmp_path / name).mkdir()
        models[name] = archive(tmp_path / name, handler)
    content = models["damaged"].read_bytes()
    models["damaged"].write_bytes(content.replace(b"import os, sys", b"import io, sys", 1))
    with Server(models, partly=True) as server:
        assert requests.post(f"{server.inference}/predictions/echo", data=b"x", headers=HEADERS).ok
        assert [*server.failed] == ["refuses", "damaged"]
        assert "'refuses' did not load: ValueError: explain.method is" in str(server.failed["refuses"])
        assert "'damaged' did not load: java.util.zip.ZipException: invalid" in str(server.failed["damaged"])


def test_a_model_is_asked_once_more_before_nothing_can_be_served(tmp_path, monkeypatch):
    died = "; ".join(f"echo 'W-900{i}-{name}_1.0 x - Backend worker process died.'" for i, name in enumerate("abc"))
    monkeypatch.setattr(Server, "_command", lambda _: ["sh", "-c", f"{died}; sleep 600"])
    asked = []

    def ready(_, model):
        asked.append(model)
        return model in late and asked.count(model) > 1

    monkeypatch.setattr(Server, "_is_ready", ready)
    models = {name: archive(tmp_path, ECHO) for name in "abc"}
    late = ["a", "b"]
    with Server(models, partly=True) as server:
        assert [*server.failed] == ["c"]
    late = []
    asked.clear()
    with pytest.raises(ServerError, match="'c' did not load"):
        Server(models, partly=True).start()
    assert asked[3:] == ["a", "b", "c"]


def test_a_server_that_ends_at_once_is_an_error(tmp_path):
    with pytest.raises(ServerError, match=r"(?s)ended while it was starting.*NoSuchFlag"):
        Server({"echo": archive(tmp_path, ECHO)}, jvm=("-XX:+NoSuchFlag",)).start()


def test_the_last_words_of_what_a_server_started_are_waited_for(tmp_path, monkeypatch):
    late = "(sleep 1; echo 'Unrecognized option: late') & echo 'first words'; exit 1"
    monkeypatch.setattr(Server, "_command", lambda _: ["sh", "-c", late])
    with pytest.raises(ServerError, match=r"(?s)ended while it was starting.*first words\nUnrecognized option: late"):
        Server({"echo": archive(tmp_path, ECHO)}).start()


def test_a_server_whose_child_never_ends_is_still_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "_command", lambda _: ["sh", "-c", "sleep 600 & echo 'first words'; exit 1"])
    monkeypatch.setattr("heatserve_tools.torchserve.server.LAST_WORDS", 0.5)
    with pytest.raises(ServerError, match="first words"):
        Server({"echo": archive(tmp_path, ECHO)}).start()


def test_the_answer_of_another_server_is_not_taken_for_ones_own(tmp_path, monkeypatch):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps([{"minWorkers": 1, "workers": [{"status": "READY"}]}]).encode())

    other = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    monkeypatch.setattr(Server, "_command", lambda _: ["sh", "-c", "sleep 1; echo Address already in use; exit 1"])
    overrides = {"management_address": f"http://127.0.0.1:{other.server_port}"}
    with pytest.raises(ServerError, match="Address already in use"):
        Server({"echo": archive(tmp_path, ECHO)}, overrides).start()
    other.shutdown()
    other.server_close()


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(ServerError, match=r"none\.mar"):
        Server({"none": tmp_path / "none.mar"})


def test_tokens_can_stay_on(tmp_path):
    overrides = {"disable_token_authorization": "false"}
    with Server({"echo": archive(tmp_path, ECHO)}, overrides) as server:
        url = f"{server.inference}/predictions/echo"
        assert requests.post(url, data=b"x", headers=HEADERS).status_code == 400
        token = {"Authorization": f"Bearer {server.key()}"}
        assert requests.post(url, data=b"x", headers={**HEADERS, **token}).ok


def test_the_server_ends_even_when_its_owner_is_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from heatserve_tools.torchserve.server import Server\n"
        "server = Server({'echo': Path(sys.argv[1])}).start()\n"
        "print(server.pid, *server.worker_pids('echo'), server.directory, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(archive(tmp_path, ECHO))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    *pids, directory = owner.stdout.readline().split()
    pids = [int(pid) for pid in pids]
    assert len(alive(pids)) == 2
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 20
    while (alive(pids) or Path(directory).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(pids) == []
    assert not Path(directory).exists()
